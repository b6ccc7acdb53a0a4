"""Text tasks: files made here, split rules, rows that are no examples, padding and buckets, tokenizers."""

import gzip

import numpy as np
import pytest

from tna_jax.hf import tokenizer
from tna_jax.programs.data import text, tokens
from tna_jax.programs.data.source import DataError
from tna_jax.programs.data.text import FORMS, TextSplit


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where data is looked for: nothing is in it but what a test writes."""
    monkeypatch.setenv("TNA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    (tmp_path / "data" / "text").mkdir(parents=True)
    return tmp_path / "data" / "text"


def write(folder, name: str, rows: list[str]) -> None:
    with gzip.open(folder / f"{name}.tsv.gz", "wt", encoding="utf-8", newline="\n") as file:
        file.write("".join(f"{row}\n" for row in rows))


def many(count: int, classes: int = 2, start: int = 0) -> list[str]:
    """Rows sorted by label, as such files often are."""
    return [f"{i * classes // count}\ttext number {start + i}" for i in range(count)]


def every(task) -> list[tuple[str, ...]]:
    return [*task.train.texts, *task.validation.texts, *task.test.texts]


def test_a_set_of_one_file_is_cut_in_three_and_a_text_stands_in_one_part_only(folder):
    rows = many(100) + [f"1\ttext number {i}" for i in range(40)] + ["0\t", "1\t  "]
    write(folder, "mr.all", rows)
    task = text.load("mr")
    assert [len(set(split.texts)) for split in (task.validation, task.test, task.train)] == [10, 10, 80]
    assert sorted(every(task)) == sorted((row.split("\t")[1],) for row in rows[:140])  # two rows have no text
    parts = [set(part.texts) for part in (task.train, task.validation, task.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    numbers = [int(one.split()[-1]) for (one,) in task.train.texts]
    assert all(label == (i >= 50) for i, label in zip(numbers, task.train.labels, strict=True) if i >= 40)
    assert len(set(task.train.labels[:20])) == 2  # shuffled
    again = text.load("mr")
    assert again.train.texts == task.train.texts and again.test.texts == task.test.texts


def test_files_that_are_there_are_used_as_they_are(folder):
    for i, part in enumerate(("train", "dev", "test")):
        write(folder, f"sst5.{part}", many(10, 5, start=100 * i))
    task = text.load("sst5")
    assert [split.texts[0] for split in (task.train, task.validation, task.test)] == [
        (f"text number {start}",) for start in (0, 100, 200)
    ]
    assert (task.num_classes, task.train.labels.dtype) == (5, np.int32)
    write(folder, "trec.train", many(50, 6))
    write(folder, "trec.test", many(6, 6, start=500))
    task = text.load("trec")
    assert [len(split.labels) for split in (task.train, task.validation, task.test)] == [45, 5, 6]
    write(folder, "rte.train", [f"{i % 2}\tone {i}\tother {i}" for i in range(20)])
    write(folder, "rte.dev", ["1\tone x\tother x"])
    task = text.load("rte")
    assert task.test.texts == (("one x", "other x"),) and len(task.validation.labels) == 2
    assert "dev file" in task.how_split and "RTE: 18 train" in task.describe()


def test_bad_rows_are_named_and_so_are_unknown_and_missing_sets(folder):
    write(folder, "cr.all", ["0\tfine", "2\ttoo high", "no label", "1\tone\ttwo", "x\tno number", *["9\tbad"] * 4])
    with pytest.raises(DataError) as caught:
        text.load("cr")
    for part in (
        "cr.all.tsv.gz",
        "8 rows",
        "line 2: label '2', expected 0 to 1",
        "line 3: 0 fields",
        "line 4: 2 fields",
        "and 3 more",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="did you mean 'sst2'"):
        text.load("sts2")
    with pytest.raises(DataError, match=r"subj\.all\.tsv\.gz"):
        text.load("subj")
    write(folder, "sst2.train", many(4))
    with pytest.raises(DataError, match=r"lacks sst2\.dev\.tsv\.gz, sst2\.test\.tsv\.gz"):
        text.load("sst2")
    (folder / "mpqa.all.tsv.gz").write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(DataError, match="cannot be read"):
        text.load("mpqa")
    write(folder, "subj.all", [])
    with pytest.raises(DataError, match="no examples"):
        text.load("subj")


def test_every_task_says_what_it_is():
    assert set(text.names()) == {"sst2", "sst5", "mr", "cr", "mpqa", "subj", "trec", "cola", "rte", "ag_news"}
    assert [name for name, form in FORMS.items() if form.texts == 2] == ["rte", "ag_news"]


def test_the_corpus_holds_each_training_text_once_and_no_test_text(folder):
    write(folder, "mr.all", [*many(50), *many(50)])
    write(folder, "rte.train", [f"{i % 2}\tone {i}\tother" for i in range(20)])
    write(folder, "rte.dev", ["1\tone x\tother x"])
    found = text.corpus(["mr", "rte"])
    assert len(found) == len(set(found)) and found.count("other") == 1
    held = {line for split in (text.load("mr").test, text.load("mr").validation) for (line,) in split.texts}
    assert not held & set(found)


def test_buckets_keep_every_token_and_cut_padding_only():
    made = np.array([[[2, 7, 3, 0, 0, 0], [0] * 6], [[2, 7, 3, 8, 3, 0], [0, 0, 0, 1, 1, 0]]], np.int32)
    groups = tokens.buckets(made, 0, [3, 6])
    assert [(rows.tolist(), part.shape) for rows, part in groups] == [([0], (1, 2, 3)), ([1], (1, 2, 6))]
    for rows, part in groups:
        assert np.array_equal(part, made[rows][:, :, : part.shape[2]])
        assert (made[rows][:, 0, part.shape[2] :] == 0).all()
    with pytest.raises(ValueError, match="must increase and end with 6"):
        tokens.buckets(made, 0, [3, 5])


def test_texts_and_pairs_are_encoded_with_their_segments():
    pytest.importorskip("tokenizers")
    lines = [f"the {word} film number {i}" for i in range(60) for word in ("good", "bad", "unbelievable")]
    made = tokenizer.train(lines, 300)
    special = tokens.special(made)
    assert (
        special.shape == (made.vocab,)
        and special.sum() == 5
        and special[[made.pad, made.cls, made.sep, made.mask]].all()
    )
    found = tokens.encode(made, [("The good film",), ("bad film",)], 8)
    assert (found.shape, found.dtype) == ((2, 2, 8), np.int32)
    assert found[0, 0, 0] == made.cls and found[0, 0, 4] == made.sep and (found[0, 0, 5:] == made.pad).all()
    assert (found[:, 1] == 0).all()
    pairs = tokens.encode(made, [("bad", "unbelievable film")], 8)
    assert pairs[0, 1].tolist()[:6] == [0, 0, 0, 1, 1, 1]
    split = TextSplit((("bad film",),), np.array([1], np.int32))
    encoded, labels = tokens.encode_split(made, split, 8)
    assert np.array_equal(encoded[0], found[1]) and labels.tolist() == [1]

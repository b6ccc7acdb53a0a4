"""Texts of the user's own: TSV and CSV with a header, folders of them; what is refused, and that tna cold reads them."""

from pathlib import Path

import pytest

from tna_jax.programs.cli import dataset_names
from tna_jax.programs.data import DataError, text_sources


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: str, count: int = 30, start: int = 0, labels=("good", "bad"), header: str = "text,label") -> str:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    mark = "\t" if file.endswith(".tsv") else ","
    rows = [
        mark.join([f"a text number {start + i}"] * (header.count(",")) + [str(labels[i % len(labels)])])
        for i in range(count)
    ]
    Path(file).write_text("\n".join([header.replace(",", mark), *rows]) + "\n")
    return file


@pytest.mark.parametrize("file", ["mine.csv", "mine.tsv"])
def test_one_file_is_cut_in_three(file):
    task = text_sources.load(write(file))
    assert [len(part.texts) for part in (task.train, task.validation, task.test)] == [24, 3, 3]
    assert task.class_names == ("bad", "good") and task.source == str(Path(file).resolve())
    every = [
        *zip(task.train.texts, task.train.labels, strict=True),
        *zip(task.test.texts, task.test.labels, strict=True),
    ]
    assert all(label == (int(words.split()[-1]) % 2 == 0) for (words,), label in every)


def test_a_folder_of_splits_and_pairs():
    for part, count in (("train", 20), ("validation", 6), ("test", 5)):
        write(f"mine/{part}.tsv", count, 100 * count, labels=(2, 10), header="text,text2,label")
    assert text_sources.is_text("./mine")
    task = text_sources.load("./mine")
    assert [len(part.texts) for part in (task.train, task.validation, task.test)] == [20, 6, 5]
    assert task.class_names == ("2", "10") and len(task.test.texts[0]) == 2
    Path("mine/test.tsv").unlink()
    assert len(text_sources.load("./mine").test.texts) == 6


def test_nothing_is_quoted_in_tsv_and_csv_is_as_usual():
    Path("q.tsv").write_text('text\tlabel\n"so" he said\t0\n' + "".join(f"x {i}\t1\n" for i in range(30)))
    Path("q.csv").write_text('text,label\n"one, two",0\n' + "".join(f"x {i},1\n" for i in range(30)))
    for file, words in (("q.tsv", '"so" he said'), ("q.csv", "one, two")):
        task = text_sources.load(file)
        assert (words,) in [*task.train.texts, *task.validation.texts, *task.test.texts]


def test_changed_texts_are_told():
    task = text_sources.load(write("mine.csv"))
    text_sources.load("mine.csv", recorded=task.fingerprint)
    with pytest.raises(DataError, match="is not the data of the run any more"):
        text_sources.load(write("mine.csv", start=1), recorded=task.fingerprint)


def test_what_is_refused():
    for file, header, words in (
        ("a.csv", "sentence,label", "no column 'text'; the columns are sentence, label"),
        ("b.csv", "text,kind", "no column 'label'"),
    ):
        with pytest.raises(DataError, match=words):
            text_sources.load(write(file, header=header))
    assert text_sources.load("b.csv", target="kind").num_classes == 2
    with pytest.raises(DataError, match="too few different texts"):
        text_sources.load(write("few.csv", 3))
    write("mine/train.csv")
    with pytest.raises(DataError, match="holds train.csv, expected train and dev or test"):
        text_sources.load("./mine")
    write("mine/test.csv", labels=("ugly",))
    with pytest.raises(DataError, match=r"test has labels that are none of the classes \(bad, good\): ugly"):
        text_sources.load("./mine")
    with pytest.raises(DataError, match=r"is no text task; known: sst2.*FILE.tsv"):
        text_sources.load("mine.npz")
    with pytest.raises(DataError, match="no such file"):
        text_sources.load("gone.tsv")
    assert "'sst2'? known: sst2" in dataset_names.text_problem("--tasks", ("sst", "./x.tsv"))
    assert not dataset_names.text_problem("--tasks", ("sst2", "./x.tsv", "hf:glue/sst2"))


def test_texts_of_one_class_are_no_task(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"word {i}\tyes\n" for i in range(60)))
    with pytest.raises(DataError, match=r"a.tsv: all examples are of one class \(yes\)"):
        text_sources.load(str(tmp_path / "a.tsv"))


def test_examples_that_stand_in_two_files_are_told():
    """As of images: equal texts of one file are cut into one part, those of two files are not."""
    for part, count, start in (("train", 30, 0), ("dev", 10, 20), ("test", 10, 24)):
        write(f"mine/{part}.tsv", count, start)
    task = text_sources.load("./mine")
    told = (
        "6 of 10 test examples are training or validation examples too: scores on them say little of new examples",
        "10 of 10 validation examples are training examples too: what is chosen by them favors models that have memorized them",
    )
    assert task.notes == told and task.describe().endswith(f", 2 classes; {told[0]}; {told[1]}")
    write("mine/dev.tsv", 10, 100)
    write("mine/test.tsv", 10, 25, labels=("bad", "good"))  # number 30 to 34 are new
    assert text_sources.load("./mine").notes == ("5 of 10 test examples are training or validation examples too: scores on them say little of new examples",)  # fmt: skip
    write("mine/test.tsv", 10, 24, labels=("bad", "good"))  # the same texts with other labels: other examples
    assert text_sources.load("./mine").notes == () == text_sources.load(write("one.csv", 60)).notes

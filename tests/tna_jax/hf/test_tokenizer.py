"""Tokenizers: ids, masks and types by hand, training that repeats itself, files, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra hf")

from tests.tna_jax.hf import older_folders
from tna_jax.hf import tokenizer
from tna_jax.io.errors import UsageError

TEXTS = ["the cat sat on the mat", "The cats sat, and the dog sat.", "a dog and a cat", "unbelievable cats believe"] * 5


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def made(kind):
    return tokenizer.train(TEXTS, 320 if kind == "bpe" else 60, kind)


def test_special_tokens_stand_where_bert_and_roberta_have_them(made, kind):
    assert (made.pad, made.cls, made.sep, made.mask) == {"wordpiece": (0, 2, 3, 4), "bpe": (1, 0, 2, 4)}[kind]
    assert made.vocab <= {"wordpiece": 60, "bpe": 320}[kind]


def test_texts_are_framed_cut_and_padded(made, kind):
    found = made.encode(["the cat", "the cat sat on the mat and the dog"], 6)
    assert found.ids.shape == (2, 6) and found.ids.dtype == found.types.dtype == np.int32 and found.mask.dtype == bool
    assert (found.ids[:, 0] == made.cls).all() and found.ids[1, -1] == made.sep
    assert (found.mask == (found.ids != made.pad)).all() and not found.types.any()
    assert found.mask[1].all() and found.mask[0].sum() < 6
    last = found.mask[0].sum() - 1
    assert found.ids[0, last] == made.sep
    assert made.decode(found.ids[0]).strip() == "the cat"


def test_pairs_have_types_in_bert_and_a_double_end_in_roberta(made, kind):
    found = made.encode(["the cat"], 10, ["a dog"])
    ends = np.flatnonzero(found.ids[0] == made.sep)
    if kind == "wordpiece":
        assert len(ends) == 2
        expected = (np.arange(10) > ends[0]) & (np.arange(10) <= ends[1])
        assert (found.types[0] == expected).all()
    else:
        assert len(ends) == 3 and ends[1] == ends[0] + 1 and not found.types.any()
    second = made.encode(["a dog"], 10).mask.sum() - 2
    short = made.encode(["the cat sat on the mat"], len(ends) + 3 + second, ["a dog"])  # the longer text is cut to 2
    assert short.mask.all() and made.decode(short.ids[0]).startswith("the cat") and "dog" in made.decode(short.ids[0])


def test_what_a_folder_says_of_its_tokenizer_is_saved_again(made, kind):
    made.save("words")
    about = json.loads(Path("words/tokenizer_config.json").read_text())
    assert about["unk_token"] == {"wordpiece": "[UNK]", "bpe": "<unk>"}[kind] and "model_max_length" not in about
    assert ("token_type_ids" in about["model_input_names"]) == (kind == "wordpiece")
    about |= {"model_max_length": 77, "do_lower_case": True, "chat_template": "x"}
    Path("words/tokenizer_config.json").write_text(json.dumps(about))
    again = tokenizer.load("words")
    assert again.max_length == 77
    again.save("more")
    assert json.loads(Path("more/tokenizer_config.json").read_text()) == about


def test_the_same_texts_give_the_same_tokenizer(made, kind):
    """Of several trainings: hash tables are seeded anew in each."""
    sizes = {"wordpiece": 60, "bpe": 320}
    for _ in range(5):
        assert tokenizer.train(iter(TEXTS), sizes[kind], kind).backend.to_str() == made.backend.to_str()
    assert tokenizer.train(TEXTS[:3], sizes[kind], kind).backend.to_str() != made.backend.to_str()


def test_a_folder_gives_it_back(made):
    made.save("folder")
    found = tokenizer.load("folder")
    for one, other in zip(found.encode(TEXTS, 8), made.encode(TEXTS, 8), strict=True):
        np.testing.assert_array_equal(one, other)
    before = Path("folder/tokenizer.json").read_bytes()
    found.save("folder")
    assert Path("folder/tokenizer.json").read_bytes() == before


def test_a_folder_with_words_or_pieces_alone_gives_the_same_ids(made, kind):
    older_folders.write(made, kind, "old")
    asked = [*TEXTS, "THE Ünbelievable cat", f"a {made.backend.id_to_token(made.mask)} sat"]
    for pairs in (None, asked[::-1]):
        for one, other in zip(
            tokenizer.load("old").encode(asked, 24, pairs), made.encode(asked, 24, pairs), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    made.save("new")
    for file in Path("old").iterdir():
        Path("new", file.name).write_text("")
    assert tokenizer.load("new").vocab == made.vocab  # tokenizer.json goes first


def test_capitals_and_spaces_are_treated_as_the_folder_says():
    cased = tokenizer.train(TEXTS, 60, lowercase=False)
    older_folders.write(cased, "wordpiece", "cased", do_lower_case=False)
    older_folders.write(cased, "wordpiece", "silent")
    assert tokenizer.load("cased").backend.encode("The").tokens[1][0] == "T"
    assert tokenizer.load("silent").backend.encode("The").tokens[1][0] == "t"
    older_folders.write(tokenizer.train(TEXTS, 320, "bpe"), "bpe", "spaced", add_prefix_space=True)
    spaced = tokenizer.load("spaced").backend
    assert spaced.encode("cat").ids == spaced.encode(" cat").ids


def test_words_are_cut_into_the_longest_known_parts():
    made = tokenizer.train(TEXTS, 60)
    vocabulary = made.backend.get_vocab()
    assert {"the", "cats", "##s", "sat"} <= set(vocabulary)
    assert max(map(ord, "".join(vocabulary))) < 0xFFFF
    assert made.backend.encode("catss").tokens == ["[CLS]", "cats", "##s", "[SEP]"]
    assert made.backend.encode("CÁT 日 \U0001f600").tokens == ["[CLS]", "cat", "[UNK]", "[UNK]", "[SEP]"]
    cased = tokenizer.train(TEXTS, 60, lowercase=False)
    assert "T" in cased.backend.get_vocab() and "T" not in vocabulary
    assert tokenizer.train([*TEXTS, "fun \U0001f600\U0001f600"], 60).vocab > 0


def test_nothing_is_unknown_to_bytes():
    made = tokenizer.train(TEXTS, 320, "bpe")
    text = "Ünknown 日本 \U0001f600"
    assert made.decode(made.encode([text], 64).ids[0]) == text


def test_what_cannot_be_is_refused(made):
    with pytest.raises(
        UsageError, match=r"there is neither gone/tokenizer.json, nor vocab.txt, nor vocab.json with merges.txt"
    ):
        tokenizer.load("gone")
    Path("half").mkdir()
    Path("half/vocab.json").write_text("{}")
    with pytest.raises(UsageError, match="nor vocab.json with merges.txt beside it"):
        tokenizer.load("half")
    Path("half/merges.txt").write_text("a b\n")
    with pytest.raises(UsageError, match="half/vocab.json is not a tokenizer"):
        tokenizer.load("half")
    Path("half/vocab.txt").write_text("a\n")
    with pytest.raises(UsageError, match="half/vocab.txt does not have the special tokens"):
        tokenizer.load("half")
    with pytest.raises(UsageError, match="unknown kind of tokenizer 'word'.*wordpiece"):
        tokenizer.train(TEXTS, kind="word")
    with pytest.raises(UsageError, match="a bpe vocabulary has at least 261 ids, got 100"):
        tokenizer.train(TEXTS, 100, "bpe")
    with pytest.raises(UsageError, match="a length of 2 tokens holds no text beside 2 special tokens"):
        made.encode(["a"], 2)
    with pytest.raises(UsageError, match="1 second texts for 2"):
        made.encode(["a", "b"], 9, ["c"])
    Path("bad").mkdir()
    Path("bad/tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="bad/tokenizer.json is not a tokenizer"):
        tokenizer.load("bad")
    made.save("odd")
    text = Path("odd/tokenizer.json").read_text()
    Path("odd/tokenizer.json").write_text(text.replace(json.dumps(made.backend.id_to_token(made.mask)), '"[M]"'))
    with pytest.raises(UsageError, match="does not have the special tokens"):
        tokenizer.load("odd")

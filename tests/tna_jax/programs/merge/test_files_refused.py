"""Files and options that `tna merge` refuses: every one is named, and nothing is written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.tna_jax.programs.merge.files import fails, shard, tensors
from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main

pytestmark = pytest.mark.usefixtures("small_pieces")


def test_every_difference_is_named_and_nothing_is_written(tmp_path, files, capsys):
    odd = tensors(1)
    del odd["scale"]
    odd |= {
        "more": np.zeros(2, np.float32),
        "head": np.zeros((2, 32), np.float32),
        "none": np.zeros((0, 3), np.float16),
    }
    save_file(odd, tmp_path / "odd.safetensors")
    assert main(["merge", *files, str(tmp_path / "odd.safetensors"), "-o", "new/out.safetensors"]) == 2
    message = capsys.readouterr().err
    for part in (
        "differ in 4 places",
        "more is not in",
        "scale is not in",
        "head is [64]",
        "but [2, 32] in",
        "none is F32",
    ):
        assert part in message
    assert not os.path.exists("new")


def test_damaged_files_are_refused(tmp_path, files, capsys):
    whole = Path(files[0]).read_bytes()
    cases = {
        "the file holds 4299": whole[:-1],
        "not a sound safetensors file": b"\x08" + b"\0" * 7 + b"nonsense",
        "its header should take": b"abc",
        "the type 'F31'; known: ": whole.replace(b'"F32"', b'"F31"'),
        "has 256 bytes": whole.replace(b'"shape":[64]', b'"shape":[65]'),
    }
    for i, (message, content) in enumerate(cases.items()):
        assert content != whole
        (tmp_path / f"bad{i}").write_bytes(content)
        assert message in fails(capsys, files[0], str(tmp_path / f"bad{i}"), "-o", "out.safetensors"), message
    shard(tmp_path / "a", 0)
    index = tmp_path / "a" / tensor_headers.INDEX
    index.write_text(index.read_text().replace("model-00001-of-00002", "../0"))
    assert "outside its folder: ../0.safetensors" in fails(
        capsys, files[0], str(tmp_path / "a"), "-o", "out.safetensors"
    )
    index.write_text(json.dumps({"weight_map": {"head": "model-00002-of-00002.safetensors"}}))
    message = fails(capsys, files[0], str(tmp_path / "a"), "-o", "out.safetensors")
    assert "do not agree on these tensors: head, body.weight, none, scale" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("A -o out.safetensors", "two or more models to merge, got 1"),
        ("A B", "--out"),
        ("A B -o A", "exists"),
        ("A B -o A --overwrite", "is one of the models to merge"),
        ("A B -o out --weights 1", "--weights: 1 for 2 models"),
        ("A B -o out --weights 1 -1", "their sum not 0"),
        ("A B -o out --weights 1 nan", "must be finite"),
        ("A B -o out --accumulate float23", "did you mean 'float32'"),
        ("A B -o out --accumulate float64 --method ties --base A", "does nothing for --method ties"),
        ("A B -o out --ties kep --evaluate true", "did you mean 'keep'"),
        ("A B -o out --weights 1 1 --evaluate true", "exclude each other"),
        ("A B -o out --ties drop", "--ties does nothing without --evaluate"),
        (
            "A B -o pytorch_model.bin",
            "only safetensors are written; name a file that ends in .safetensors, or a folder",
        ),
        ("A B gone -o out", "there is no file or folder gone"),
        ("A . -o out", "has neither model.safetensors.index.json nor model.safetensors"),
        ("A B -o out --evaluate false", "--evaluate false"),
        ("A B -o out --evaluate echo", "must print a number in its last line, printed"),
        ("A B -o out --evaluate no-such-command", "no-such-command"),
    ],
)
def test_bad_options_are_answered_in_one_line(files, capsys, words, expected):
    paths = {"A": files[0], "B": files[1]}
    message = fails(capsys, *(paths.get(word, word) for word in words.split()))
    assert expected in message
    assert not os.path.exists("out.safetensors")


def test_no_input_is_written_over_whatever_its_name(tmp_path, files, capsys):
    (tmp_path / "d").mkdir()
    for i, name in enumerate("ab"):
        save_file(tensors(i), tmp_path / "d" / f"{name}.safetensors")
    for i, name in enumerate("AB"):
        (tmp_path / "e" / name).mkdir(parents=True)
        save_file(tensors(i), tmp_path / "e" / name / tensor_headers.SINGLE)
        (tmp_path / "e" / name / "config.json").write_text(f'{{"of": "{name}"}}')
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "d" / "b.safetensors")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words, named in (
        (("d/a.safetensors", "d/b.safetensors", "-o", "d"), "d/a.safetensors"),
        (("e/A", "e/B", "-o", "e/A/model.safetensors"), "e/A/model.safetensors"),
        (("e/A", "e/B/model.safetensors", "-o", "e/B"), "e/B/model.safetensors"),
        (("d/a.safetensors", "d/b.safetensors", "-o", "link.safetensors"), "link.safetensors"),
    ):
        message = fails(capsys, *words, "--overwrite")
        assert named in message and ("write over" in message or "one of the models" in message), words
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_model_that_is_named_twice_is_refused(tmp_path, files, capsys):
    (tmp_path / "a").mkdir()
    save_file(tensors(0), tmp_path / "a" / tensor_headers.SINGLE)
    os.link(files[0], tmp_path / "link.safetensors")
    assert f"named more than once: {files[0]};" in fails(capsys, files[0], files[1], files[0], "-o", "out.safetensors")
    for other in ("./0.safetensors", "link.safetensors"):
        assert f"named more than once: {Path(other)} is {files[0]}" in fails(
            capsys, files[0], other, "-o", "o.safetensors"
        )
    assert "a/model.safetensors is a" in fails(capsys, "a", "a/model.safetensors", "-o", "out.safetensors")


def test_every_file_that_cannot_be_merged_is_named(tmp_path, files, capsys):
    (tmp_path / "cut.safetensors").write_bytes(Path(files[0]).read_bytes()[:-1])
    save_file({}, tmp_path / "empty.safetensors")
    message = fails(capsys, files[0], "cut.safetensors", "gone", "empty.safetensors", "-o", "out.safetensors")
    for part in ("cut.safetensors is not a sound", "no file or folder gone", "empty.safetensors holds no tensors"):
        assert part in message


def test_of_many_differences_the_first_are_named_after_what_the_models_are(tmp_path, capsys):
    for name in ("vit", "bert"):
        (tmp_path / name).mkdir()
        held = {f"{name}.{i:02}": np.zeros(1, np.float32) for i in range(20)}
        save_file(held, tmp_path / name / tensor_headers.SINGLE)
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": name}))
    assert main(["merge", "vit", "bert", "-o", "out"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "tna merge: vit is a vit, bert is a bert: these are other networks; they differ in 40 places:"
    assert len(lines) == 12 and lines[1] == "  bert.00 is not in vit" and lines[-1] == "  ... and 30 more"

"""What a merge says of itself: the anchors that its models share, what they are merges of, where they come from."""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.tna_jax.programs.merge.files import fails, tensors
from tna_jax import masks
from tna_jax.io import tensor_headers
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.main import main

pytestmark = pytest.mark.usefixtures("small_pieces")


def exported(file, values, ratio=0.4, seed=3):
    """A file as `tna export` writes it."""
    about = {"mask": {"kind": "bernoulli", "ratio": ratio, "seed": seed, "where": None}}
    named = {f"params/{layer}/{leaf}": value for layer, held in values.items() for leaf, value in held.items()}
    save_file(named | {"state/norm/mean": np.zeros(4, np.float32)}, file, {"tna_jax": json.dumps(about)})


def test_anchors_named_by_the_files_recipe_are_verified(capsys):
    draws = np.random.default_rng(0)
    start = {"dense": {"kernel": draws.normal(size=(20, 4)).astype(np.float32), "bias": np.zeros(4, np.float32)}}
    mask = masks.bernoulli(stream(3, Stream.RUN_MASK), start, 0.4)

    def trained(leaf, free):
        return np.where(free, leaf + draws.normal(size=leaf.shape).astype(np.float32), leaf)

    for name in ("a", "b"):
        exported(f"{name}.safetensors", jax.tree.map(trained, start, mask))
    assert main(["merge", "a.safetensors", "b.safetensors", "-o", "ab.safetensors"]) == 0
    anchored = sum(int((~m).sum()) for m in jax.tree.leaves(mask))
    assert f"the {anchored} anchors that the files' recipe names" in capsys.readouterr().out
    assert json.loads(Path("ab.merge.json").read_text())["anchors_verified"]["anchored"] == anchored
    moved = jax.tree.map(lambda leaf: leaf + np.float32(1), start)
    exported("moved.safetensors", moved)
    message = fails(capsys, "a.safetensors", "moved.safetensors", "-o", "no.safetensors")
    assert "anchors are shared" in message and "params/dense/kernel (" in message and "params/dense/bias (" in message
    exported("other.safetensors", moved, seed=4)  # another mask: nothing is promised, nothing verified
    assert main(["merge", "a.safetensors", "other.safetensors", "-o", "other_mask.safetensors"]) == 0
    assert json.loads(Path("other_mask.merge.json").read_text())["anchors_verified"] is None


def test_a_merge_says_that_it_is_one(capsys):
    draws = np.random.default_rng(0)
    start = {"dense": {"kernel": draws.normal(size=(20, 4)).astype(np.float32)}}
    mask = masks.bernoulli(stream(3, Stream.RUN_MASK), start, 0.4)
    free = jax.tree.map(lambda leaf, m: np.where(m, leaf + np.float32(1), leaf), start, mask)
    config = {"model": "mlp", "dataset": "digits", "epochs": 3, "seed": 3, "ratio": 0.4}

    def write(file, values, seed=3, order=0, **other):
        recipe = {"kind": "bernoulli", "ratio": 0.4, "seed": seed, "where": None}
        told = {"seed": seed, "ratio": 0.4, "method": "tna", "start": 0, "order": order}
        about = {"format": 1, "config": config | other, "model": told, "mask": recipe, "checkpoint": 3}
        held = {f"params/dense/{leaf}": value for leaf, value in values["dense"].items()}
        save_file(held, file, {"tna_jax": json.dumps(about), "format": "pt", "title": str(order)})

    def merged(*names):
        assert main(["merge", *names, "-o", "out.safetensors", "--overwrite"]) == 0
        metadata = tensor_headers.read_header(Path("out.safetensors"))[1]
        assert metadata["format"] == "pt" and "title" not in metadata
        assert json.loads(metadata["tna_merge"])["models"] == list(names)
        return json.loads(metadata["tna_jax"]) if "tna_jax" in metadata else None

    write("a", start)
    write("b", free, order=1, epochs=4)
    write("c", start, seed=4, order=2)
    write("d", start, order=3, dataset="mnist")
    about = merged("a", "b")  # the anchors are the same in both: the merge has them
    assert about["mask"] == {"kind": "bernoulli", "ratio": 0.4, "seed": 3, "where": None}
    assert about["model"] == {
        "merged": ["a", "b"], "weights": [0.5, 0.5], "seed": 3, "ratio": 0.4, "method": "tna", "start": 0,
    }  # fmt: skip
    assert about["config"] == {"model": "mlp", "dataset": "digits", "seed": 3, "ratio": 0.4}
    about = merged("a", "c")  # other anchors: no recipe, no seed
    assert about["mask"] is None and about["model"] == {"merged": ["a", "c"], "weights": [0.5, 0.5]}
    assert about["config"] == {"model": "mlp", "dataset": "digits", "epochs": 3}
    assert merged("a", "d") is None  # of other data: nothing that `tna import` could read
    capsys.readouterr()
    assert main(["import", "out.safetensors"]) == 2
    assert "a merge of models that are not all exports of one network and data" in capsys.readouterr().err


def test_a_merged_folder_has_a_record_of_its_own(tmp_path):
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        save_file(tensors(i), tmp_path / name / tensor_headers.SINGLE)
        for file in ("config.json", "README.md"):
            (tmp_path / name / file).write_text("{}")
        (tmp_path / name / "pretraining.json").write_text(json.dumps({"in_words": f"seed {i}", "seed": i}))
    assert main(["merge", "a", "b", "-o", "ab", "--weights", "3", "1"]) == 0
    assert sorted(os.listdir("ab")) == [
        "README.md",
        "config.json",
        "merge.json",
        "model.safetensors",
        "pretraining.json",
    ]
    record = json.loads(Path("ab/pretraining.json").read_text())
    assert record["in_words"] == "a merge of a, b" and "seed" not in record
    assert [one["pretraining"]["seed"] for one in record["merged"]] == [0, 1]
    assert [one["weight"] for one in record["merged"]] == [0.75, 0.25]

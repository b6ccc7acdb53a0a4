"""Masked language modeling, segmentation and several labels, each from own data in a file to the barrier; numbers as NumPy computes them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.programs.cli.main import main

NET = """
import jax
from flax import nnx

class Tagger(nnx.Module):
    def __init__(self, rngs):
        self.embed, self.out = nnx.Embed(9, 8, rngs=rngs), nnx.Linear(8, 9, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        return self.out(nnx.relu(x + x.mean(1, keepdims=True)))

class Segmenter(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)

    def __call__(self, images):
        return self.conv(images)

def masked(*, rngs):
    return Tagger(rngs)

def segmentation(*, rngs):
    return Segmenter(rngs)

def labels(*, rngs):
    return nnx.Linear(5, 4, rngs=rngs)
"""
DRAW = np.random.default_rng(0)
TOKENS = DRAW.integers(1, 9, (64, 6)).astype(np.int32)
HIDDEN = DRAW.random((64, 6)) < 0.3
IMAGES = DRAW.integers(0, 256, (64, 6, 6)).astype(np.uint8)
FEATURES = DRAW.normal(size=(64, 5)).astype(np.float32)
CASES = {
    "masked-lm": ("masked", np.where(HIDDEN, 0, TOKENS), np.where(HIDDEN, TOKENS, -100), "nats a hidden token",
                  ("loss", "perplexity", "accuracy")),
    "segmentation": ("segmentation", IMAGES, np.where(IMAGES > 250, 255, IMAGES // 100), "nats a pixel",
                     ("loss", "accuracy")),
    "multi-label": ("labels", FEATURES, (FEATURES[:, :4] + FEATURES[:, 1:] > 0).astype(np.int32), "nats a label",
                    ("loss", "accuracy", "exact_match", "f1")),
}  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Writes the network and the data of an objective; returns the command that trains it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(objective, **changed):
        name, inputs, targets, *_ = CASES[objective]
        Path("net.py").write_text(NET)
        arrays = {"x_train": inputs[:48], "y_train": targets[:48], "x_test": inputs[48:], "y_test": targets[48:]}
        np.savez("data.npz", **arrays | changed)
        return ["train", "--model", f"./net.py:{name}", "--dataset", "data.npz", "--objective", objective, "--members", "2",
                "--epochs", "2", "--batch-size", "16", "--out", "run"]  # fmt: skip

    return write


@pytest.mark.slow
@pytest.mark.parametrize("objective", CASES)
def test_an_objective_from_a_file_to_the_barrier(train, capsys, objective):
    *_, unit, names = CASES[objective]
    assert main(train(objective)) == 0
    assert main(["barrier", "run", "--alphas", "3"]) == 0
    models, result = read(Path("run/train.json"))["models"], read(Path("run/barrier.json"))
    row = next(row for row in result["rows"] if row["split"] == "test")
    for name in names:
        assert [row[f"{name}_path"][i] for i in (0, -1)] == pytest.approx([m[f"test_{name}"] for m in models], rel=1e-5)
        assert row[f"{name}_barrier_linear"] >= 0
    assert result["metrics"][0]["label"] == f"loss ({unit})"
    printed = " ".join(capsys.readouterr().out.split())
    assert "loss barrier" in printed and Path("run/barrier.png").stat().st_size
    assert models[0]["test_loss"] < {"masked-lm": np.log(9) + 1, "segmentation": 2, "multi-label": 1}[objective]


@pytest.mark.parametrize(
    ("objective", "changed", "message"),
    [
        ("masked-lm", {"y_test": np.full((16, 6), -100)}, "no test target counts: all are -100, which is ignored"),
        ("segmentation", {"y_train": IMAGES[:48] // 60}, "the network returns 3 numbers for each target"),
        ("multi-label", {"y_train": np.full((48, 4), 2)}, "other train targets than 0 and 1"),
        ("multi-label", {"y_train": np.zeros((48, 3)), "y_test": np.zeros((16, 3))}, "for 2 examples the network returns float32 (2, 4), the targets are (2, 3)"),
    ],
    ids=range(4),
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(train, capsys, objective, changed, message):
    assert message in fails(capsys, *train(objective, **changed))
    assert not Path("run").exists()

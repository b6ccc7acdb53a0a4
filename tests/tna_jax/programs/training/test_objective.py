"""`--objective`: what is trained and measured follows it through every program, table and figure; what does not fit is refused."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.objectives import BY_NAME
from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.data import Dataset, Split
from tna_jax.programs.lmc import report as lmc_report
from tna_jax.programs.rebasin import report as rebasin_report
from tna_jax.programs.reports import measures, run_status

GPT = """
from flax import nnx

class Gpt(nnx.Module):
    def __init__(self, vocabulary, rngs):
        self.embed = nnx.Embed(vocabulary, 8, rngs=rngs)
        self.out = nnx.Linear(8, vocabulary, rngs=rngs)

    def __call__(self, tokens):
        return self.out(self.embed(tokens))

def create(vocabulary=11, *, rngs):
    return Gpt(vocabulary, rngs)
"""
REGRESSION = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.tanh(self.hidden(x)))

def create(rngs):
    return Net(rngs)
"""
SMALL = ["--model", "./net.py:create", "--epochs", "1", "--batch-size", "16", "--out", "run"]


class AsStored(Dataset):
    """A set whose inputs are what the network takes."""

    def preprocess(self, x):
        return x

    def describe(self):
        return "a set"

    def subset(self, train_examples=None, test_examples=None):
        return self


def a_set(inputs, targets) -> Dataset:
    parts = [Split(inputs[part], targets[part]) for part in (slice(0, 48), slice(48, 64))]
    return AsStored("a set", *parts, 11, tuple("abcdefghijk"), 1, (0.0,), (1.0,))


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Puts a network and data in the place of files."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def put(text, inputs, targets):
        Path("net.py").write_text(text)
        monkeypatch.setattr(data, "load", lambda *_, **__: a_set(inputs, targets))

    return put


def tokens():
    sequences = np.random.default_rng(0).integers(0, 11, (64, 7)).astype(np.int32)
    return sequences[:, :-1], sequences[:, 1:]


def values():
    inputs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    return inputs, np.sin(inputs.sum(1, keepdims=True))


def texts(description) -> str:
    figures = [
        text for f in description.figures for text in (f.title, getattr(f, "yaxis", ""), getattr(f, "what", ""), f.alt)
    ]
    return " | ".join([*figures, *(head for table in description.tables for head in table.heads), description.lead])


@pytest.mark.slow
def test_a_language_model_is_measured_in_nats_a_token(use, capsys):
    use(GPT, *tokens())
    words = ["--objective", "next-token", "--objective-options", "ignore=3"]
    assert main(["train", *SMALL, "--members", "2", *words]) == 0
    assert main(["barrier", "run", "--alphas", "3"]) == 0
    printed = capsys.readouterr().out
    config = read(Path("run/config.json"))
    assert (config["objective"], config["objective_options"]) == ("next-token", ["ignore=3"])
    result, models = read(Path("run/barrier.json")), read(Path("run/train.json"))["models"]
    row = next(row for row in result["rows"] if row["split"] == "test")
    for name in ("loss", "perplexity", "accuracy"):
        assert [row[f"{name}_path"][i] for i in (0, -1)] == pytest.approx([m[f"test_{name}"] for m in models], rel=1e-6)
    assert row["perplexity_path"] == pytest.approx(np.exp(row["loss_path"]), rel=1e-5)
    assert row["loss_barrier_linear"] >= 0 and "nats a" in printed and "perplexity" in printed
    assert run_status.describe(Path("run"))["result"].startswith("test loss (nats a token) ")
    logged = Path("run/metrics.jsonl").read_text()
    assert '"perplexity"' in logged and main(["report", "run"]) == 0
    pages = "".join(page.read_text() for page in Path().rglob("*.html"))
    assert "nats a token" in pages


@pytest.mark.slow
@pytest.mark.parametrize(("text", "sets", "objective", "unit"), [
    (GPT, tokens, "next-token", "loss (nats a token)"), (REGRESSION, values, "regression", "loss (squared error)"),
], ids=["gpt", "regression"])  # fmt: skip
def test_every_program_measures_by_the_objective(use, capsys, text, sets, objective, unit):
    use(text, *sets())
    sweep = ["--ratios", "0.4", "--seeds", "1", "--init", "different", "--methods", "tna", "--alphas", "3"]
    assert main(["lmc", *SMALL, *sweep, "--objective", objective]) == 0
    row = read(Path("run/lmc.json"))["rows"][0]
    assert row["loss_barrier"] >= 0 and row["loss_ends"] == [row["loss_path"][i] for i in (0, -1)]
    said = texts(lmc_report.describe(read(Path("run/lmc.json"))))
    assert unit in said and "rises above" in said
    assert ("accuracy" in said) == (objective == "next-token")
    capsys.readouterr()
    for words in (
        ["fuse", "run", "--alphas", "3"],
        ["landscape", "run", "--points", "3", "--models", "0", "1", "origin"],
    ):
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert unit in printed or unit.replace("loss", "loss barrier") in printed  # the heads of a table are folded
    fused = {row["fusion"]: row for row in read(Path("run/fuse.json"))["rows"] if row["split"] == "train"}
    assert fused["best single"]["loss"] == min(fused["mean of members"]["member_loss"])
    assert main(["rebasin", "run", "--alphas", "3", "--methods", "weight"]) == 0
    matched = read(Path("run/rebasin.json"))
    said, rows = texts(rebasin_report.describe(matched)), matched["rows"]
    assert unit.replace("loss", "loss barrier") in said and unit.replace("loss", "loss, ends") in said
    assert rows[0]["loss_ends"] == [rows[0]["loss_path"][i] for i in (0, -1)]
    assert ("accuracy_ends" in rows[0]) == (objective == "next-token")


@pytest.mark.parametrize(
    ("text", "sets", "objective", "message"),
    [
        (GPT, tokens, "classification", "integer labels (N,)"),
        (GPT, tokens, "regression", "floating-point values (N, ...)"),
        (GPT, tokens, "segmentation", "integer labels (N, H, W)"),
        (GPT.replace("Gpt(vocabulary, rngs)", "Gpt(5, rngs)"), tokens, "next-token", "must return 11 or more"),
        (GPT.replace("(tokens))", "(tokens)).sum(1)"), tokens, "next-token", "the network returns float32 (2, 11)"),
        (REGRESSION, values, "next-token", "integer tokens (N, T)"),
        (REGRESSION, values, "multi-label", "other train targets than 0 and 1"),
        (REGRESSION.replace("8, 1, rngs", "8, 2, rngs"), values, "regression", "the same shape"),
        (REGRESSION, lambda: (values()[0], np.full((64, 1), np.nan, np.float32)), "regression", "targets that are not finite"),
    ],
    ids=range(9),
)  # fmt: skip
def test_an_objective_that_does_not_fit_says_what_it_expected(use, capsys, text, sets, objective, message):
    use(text, *sets())
    assert message in fails(capsys, "train", *SMALL, "--members", "2", "--objective", objective)
    assert not Path("run").exists()


def test_next_tokens_of_images_and_objectives_there_are_not(use, capsys):
    assert "next-token needs targets that are integer tokens (N, T)" in fails(
        capsys, "train", "--objective", "next-token"
    )
    assert "next-token" in fails(capsys, "lmc", "--objective", "next-tokens")


@pytest.mark.parametrize("name", BY_NAME)
def test_measures_have_units_and_name_nothing_twice(name):
    found = measures.of_objective(BY_NAME[name]())
    labels = [measure.label for measure in found]
    assert len(set(labels)) == len(labels)
    recorded = measures.as_recorded(BY_NAME[name]())
    assert measures.of_result(recorded) == found
    assert (recorded == {}) == (name == "classification")
    assert dataclasses.is_dataclass(BY_NAME[name]()) and found[0].name == (
        "accuracy" if name == "classification" else "loss"
    )

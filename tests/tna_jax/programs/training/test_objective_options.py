"""`--objective-options` and `--objective ./loss.py:create`: recorded, used by every later program, trusted like other code, refused in a line."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.programs.cli.main import main
from tna_jax.programs.population.description import description
from tna_jax.programs.population.load import effective
from tna_jax.programs.user_code import trust

NET = """
from flax import nnx

def create(inputs=3, outputs=1, *, rngs):
    return nnx.Linear(inputs, outputs, rngs=rngs)
"""
TOKENS = """
from flax import nnx

def create(*, rngs):
    return nnx.Embed(7, 7, rngs=rngs)
"""
LOSS = """
import optax
from tna_jax.metrics import Metric
from tna_jax.objectives import Objective

def create(delta=1.0):
    def huber(outputs, targets):
        return optax.huber_loss(outputs, targets, delta=delta).mean(-1)

    def near(outputs, targets):
        return abs(outputs - targets).max(-1) < 0.5

    return Objective("huber", huber, (Metric("near", near, True, "share of near examples"),), unit=f"Huber {delta}")

def nothing():
    return 3

def fails():
    raise ValueError("no such loss")

def wrong():
    return Objective("wrong", lambda outputs, targets: outputs @ targets)
"""
SMOOTH = """
import jax
import optax
from tna_jax.objectives import Objective

def create(alpha=0.1):
    def smooth(logits, labels):
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, 10), alpha))

    return Objective("smooth", smooth, unit="nats")
"""
TRAIN = ["train", "--model", "./net.py:create", "--dataset", "./data.npz", "--members", "2", "--epochs", "1", "--batch-size",
         "16", "--out", "run"]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_NAMED", set())
    inputs = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    put(NET, inputs, inputs.sum(1, keepdims=True))
    Path("loss.py").write_text(LOSS)
    return tmp_path


def put(net, inputs, targets):
    Path("net.py").write_text(net)
    arrays = {"train": slice(0, 48), "test": slice(48, 64)}
    np.savez(
        "data.npz", **{f"{a}_{p}": v[rows] for p, rows in arrays.items() for a, v in (("x", inputs), ("y", targets))}
    )


def losses(file: str, name: str) -> list[float]:
    """The loss of the two models on the test split."""
    result = read(Path("run") / file)
    if file == "train.json":
        return [model[f"test_{name}"] for model in result["models"]]
    row = next(row for row in result["rows"] if row["split"] == "test")
    return [row[f"{name}_path"][i] for i in (0, -1)]


@pytest.mark.slow
def test_options_of_an_objective_are_recorded_and_later_programs_use_them(capsys):
    assert main([*TRAIN, "--objective", "regression", "--objective-options", "loss=absolute"]) == 0
    config = read(Path("run/config.json"))
    assert config["objective_options"] == ["loss=absolute"] and "objective_sha256" not in config
    assert main(["barrier", "run", "--alphas", "3"]) == 0
    assert losses("barrier.json", "loss") == pytest.approx(losses("train.json", "loss"))
    assert "absolute error" in capsys.readouterr().out
    assert read(Path("run/train.json"))["metrics"][0]["label"] == "loss (absolute error)"
    shutil.copytree("run", "squared")
    Path("squared/config.json").write_text(json.dumps({**config, "objective_options": ["loss=squared"]}))
    assert "{'loss': 'squared'} instead of {'loss': 'absolute'}" in fails(capsys, "fuse", "run", "squared")
    left_out = {key: value for key, value in config.items() if key != "objective_options"}
    named = {**left_out, "objective_options": ["loss=squared"]}
    same = [effective(description(options, "run", None)) for options in (left_out, named)]
    assert same[0] == same[1]


@pytest.mark.slow
def test_ignored_targets_do_not_count():
    tokens = np.random.default_rng(0).integers(1, 7, (64, 6)).astype(np.int32)
    halved = np.where(np.arange(6) < 3, tokens, 0)
    put(TOKENS, tokens, halved)
    words = [*TRAIN, "--objective", "next-token", "--objective-options"]
    assert main([*words, "ignore=0"]) == 0
    ignored = losses("train.json", "loss")
    put(TOKENS, tokens, np.where(halved == 0, -100, halved))
    assert main([*words[:-1], "--overwrite"]) == 0
    assert losses("train.json", "loss") == ignored


@pytest.mark.parametrize(
    ("objective", "options", "message"),
    [
        ("regression", ["loss=huber"], "the options of --objective regression are: loss=squared|absolute"),
        ("next-token", ["ignor=0"], "--objective-options ignor=0: the options of --objective next-token are: ignore=N"),
        ("segmentation", ["ignore=none"], "ignore=N (a whole number)"),
        ("next-token", ["ignore=3000000000"], "ignore=N (a whole number)"),
        ("multi-label", ["ignore=1"], "are: none"),
        ("classification", ["smoothing=0.1"], "are: none"),
        ("regression", ["loss"], "must be written KEY=VALUE"),
        ("./loss.py:create", ["delta=1", "delta=2"], "more than once"),
        ("./loss.py:create", ["size=1"], "it takes delta"),
        ("./loss.py:nothing", [], "returned int, expected a tna_jax.objectives.Objective"),
        ("./loss.py:fails", [], "creating the objective fails: ValueError: no such loss (line 19 of"),
        ("./loss.py:wrong", [], "its loss and metrics do not go with the data and the network; for 2 examples the network returns float32 (2, 1)"),
        ("./loss.py:gone", [], "has no gone; it has create, nothing, fails, wrong"),
        ("./gone.py:create", [], "cannot read"),
        ("./loss.py", [], "expected FILE.py:NAME"),
        ("huber", [], "or one of your own, FILE.py:NAME"),
    ],
    ids=range(16),
)  # fmt: skip
def test_wrong_options_are_refused_in_a_line(capsys, objective, options, message):
    words = ["--objective-options", *options] if options else []
    assert message in fails(capsys, *TRAIN, "--objective", objective, *words)
    assert not Path("run").exists()


@pytest.mark.slow
def test_an_objective_of_ones_own_is_recorded_and_runs_only_if_trusted(capsys):
    assert main([*TRAIN, "--objective", "./loss.py:create", "--objective-options", "delta=0.5"]) == 0
    config = read(Path("run/config.json"))
    assert config["objective"] == f"{Path.cwd()}/loss.py:create" and len(config["objective_sha256"]) == 64
    assert main(["barrier", "run", "--alphas", "3"]) == 0
    assert losses("barrier.json", "loss") == pytest.approx(losses("train.json", "loss"))
    assert losses("barrier.json", "near") == pytest.approx(losses("train.json", "near"))
    assert main(["resume", "run"]) == 0
    printed = capsys.readouterr().out
    assert "Huber 0.5" in printed and "share of near" in printed
    Path("loss.py").write_text(LOSS + "\nraise SystemExit('it ran')\n")
    assert "has changed since the run" in fails(capsys, "barrier", "run", "--alphas", "3")
    Path("loss.py").write_text(LOSS)
    trust.file().unlink()
    trust._NAMED.clear()
    net = Path("net.py").resolve()
    trust.remember(net, config["model_sha256"])
    assert "was never named by you" in fails(capsys, "barrier", "run", "--alphas", "3")
    Path("mine.json").write_text(json.dumps({"objective": "./loss.py:create"}))
    assert "has no hash" in fails(capsys, *TRAIN, "--config", "mine.json", "--overwrite")


@pytest.mark.slow
def test_classes_of_known_data_take_a_loss_of_ones_own(capsys):
    Path("loss.py").write_text(SMOOTH)
    small = ["--members", "2", "--epochs", "1", "--train-examples", "96", "--out", "run"]
    assert main(["train", *small, "--objective", "./loss.py:create"]) == 0
    assert main(["fuse", "run", "--alphas", "3"]) == 0
    assert "loss (nats)" in capsys.readouterr().out

"""`tna federate --model ./net.py:create --objective ./loss.py:create`: as in `tna train`, in simulation; refused by name where it cannot be."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.federate.flower_settings import options
from tna_jax.programs.user_code import trust

LINEN = """
import flax.linen as nn

class Net(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(self.width)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(10, name="head")(nn.Dropout(0.1, deterministic=not train)(nn.relu(x)))

def create(width=16):
    return Net(width)
"""
NNX = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, out, *, rngs):
        self.out = nnx.Linear(64, out, rngs=rngs)

    def __call__(self, x):
        return self.out(x.reshape(len(x), -1))

def create(out=10, *, rngs):
    return Net(out, rngs=rngs)
"""
LOSS = """
import jax
import optax
from tna_jax.metrics import Metric
from tna_jax.objectives import Objective

def create(smoothing=0.1):
    def loss(outputs, targets):
        return optax.softmax_cross_entropy(outputs, optax.smooth_labels(jax.nn.one_hot(targets, 10), smoothing))

    def hits(outputs, targets):
        return (outputs.argmax(-1) == targets).astype("float32")

    return Objective("smoothed", loss, (Metric("hits", hits, larger_is_better=True),), unit="nats")
"""
SMALL = ["federate", "--dataset", "digits", "--clients", "4", "--rounds", "3", "--batch-size", "16", "--out", "run"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_NAMED", set())
    for name, text in (("net", LINEN), ("nnxnet", NNX), ("loss", LOSS)):
        Path(f"{name}.py").write_text(text)


@pytest.mark.slow
def test_a_network_and_a_loss_of_ones_own_train_resume_and_export(capsys):
    words = ["--model", "./nnxnet.py:create", "--objective", "./loss.py:create", "--objective-options", "smoothing=0.2"]
    assert main([*SMALL, *words, "--anchors", "none", "pfn"]) == 0
    config, found = read(Path("run/config.json")), read(Path("run/federate.json"))
    assert config["model"].endswith("nnxnet.py:create") and config["objective"].endswith("loss.py:create")
    assert len(config["model_sha256"]) == len(config["objective_sha256"]) == 64
    for run in found["runs"]:
        assert run["hits"][-1] > 0.6 and run["loss"][-1] < run["loss"][0]
        assert run["score"] == pytest.approx(np.mean(run["loss"]))  # a loss that is the user's own is what is scored
    assert "test hits" in " ".join(capsys.readouterr().out.split())
    assert main(["resume", "run", "--rounds", "4"]) == 0
    assert len(read(Path("run/federate.json"))["runs"][0]["hits"]) == 4
    assert main(["export", "run", "--model", "0", "--out", "exported"]) == 0
    Path("nnxnet.py").write_text(NNX + "\n")
    assert main(["resume", "run", "--rounds", "5"]) == 2  # other code than the run's
    assert "nnxnet.py" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["shared", "local"])
def test_a_linen_module_of_ones_own_has_features_and_a_head(policy):
    words = ["--model", "./net.py:create", "--model-options", "width=12", "--norm-statistics", policy, "--algorithm", "moon",
             "--personalize", "head", "--anchors", "pfn", "--partition", "iid"]  # fmt: skip
    assert main([*SMALL, *words]) == 0
    (run,) = read(Path("run/federate.json"))["runs"]
    assert run["accuracy"][-1] > 0.3 and len(run["by_client"]["personalized"]["values"]) == 4


@pytest.mark.slow
def test_what_a_network_of_ones_own_lacks_is_said_in_one_line(capsys):
    assert "'shared' or 'local'" in fails(capsys, *SMALL, "--model", "./net.py:create")
    nnx = [*SMALL, "--model", "./nnxnet.py:create"]
    assert "has none" in fails(capsys, *nnx, "--algorithm", "moon")
    assert "runs no dense layer of Linen" in fails(capsys, *nnx, "--personalize", "head")
    assert "it must return 10 or more" in fails(capsys, *nnx, "--model-options", "out=7")
    assert "--depth: a network of your own takes --model-options" in fails(capsys, *nnx, "--depth", "2")


def test_on_flower_code_of_ones_own_goes_into_the_apps_task():
    with pytest.raises(UsageError, match="put it into the app's task.py"):
        options({"dataset": "digits", "model": "./net.py:create"})

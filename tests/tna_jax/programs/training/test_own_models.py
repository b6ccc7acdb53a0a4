"""`--model ./net.py:create`: trained, recorded, built again by every later program; refused in one line where it cannot be."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.programs import user_code
from tna_jax.programs.cli.main import main
from tna_jax.programs.user_code import trust

NNX = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, width, *, rngs):
        self.first = nnx.Linear(64, width, rngs=rngs)
        self.out = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.first(x.reshape(len(x), -1))))

def create(width=8, *, rngs):
    return Net(width, rngs=rngs)
"""
LINEN = """
import flax.linen as nn

class Net(nn.Module):
    width: int = 8

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1))))

def create(width=8):
    return Net(width)
"""
EQUINOX = """
import equinox as eqx
import jax.numpy as jnp

class Net(eqx.Module):
    net: eqx.nn.MLP

    def __init__(self, width, key):
        self.net = eqx.nn.MLP(64, 10, width, 1, key=key)

    def __call__(self, x):
        return self.net(jnp.ravel(x))

def create(key, width=8):
    return Net(width, key)
"""
AGAIN = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.first, self.out = nnx.Linear(64, 64, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.first(nnx.relu(self.first(x.reshape(len(x), -1))))))

def create(rngs):
    return Net(rngs)
"""
PLAIN = """
import jax

def network(params, x):
    return x.reshape(len(x), -1) @ params["w"]

def create(width=8):
    return network, lambda key: ({"w": jax.random.normal(key, (64, 10)) / 8}, ())
"""
SMALL = ["--model", "./net.py:create", "--members", "2", "--epochs", "1", "--train-examples", "96", "--test-examples", "40",
         "--out", "run"]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(trust, "_NAMED", set())
    return tmp_path


@pytest.fixture
def run(here, once) -> Path:
    """A run of two networks of net.py beside it; both stay where they were made, as their paths are recorded."""

    def make():
        Path("own").mkdir()
        Path("own/net.py").write_text(NNX)
        assert (
            main(["train", *SMALL, "--model", "own/net.py:create", "--model-options", "width=6", "--out", "own/run"])
            == 0
        )

    shared = once("own", make)
    Path("net.py").write_text(NNX)
    shutil.copytree(shared / "run", "run")
    config = read(Path("run/config.json"))
    Path("run/config.json").write_text(json.dumps({**config, "model": f"{here}/net.py:create"}))
    user_code.resolve("./net.py:create", "--model")
    return here / "run"


@pytest.mark.slow
def test_a_run_records_the_network_and_later_programs_build_it_again(run, monkeypatch):
    config = read(run / "config.json")
    assert config["model"] == f"{run.parent}/net.py:create" and config["model_options"] == ["width=6"]
    assert len(config["model_sha256"]) == 64
    (run.parent / "elsewhere").mkdir()
    monkeypatch.chdir(run.parent / "elsewhere")
    trust._NAMED.clear()
    assert main(["barrier", str(run), "--alphas", "3"]) == 0
    rows = [row for row in read(run / "barrier.json")["rows"] if row["split"] == "test"]
    models = read(run / "train.json")["models"]
    assert [rows[0]["accuracy_path"][i] for i in (0, -1)] == pytest.approx([m["test_accuracy"] for m in models])
    assert main(["resume", str(run)]) == 0
    assert main(["export", str(run), "--model", "0"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", [LINEN, EQUINOX, PLAIN], ids=["linen", "equinox", "plain"])
def test_every_framework_trains_and_is_walked_and_fused(here, text):
    Path("net.py").write_text(text)
    assert main(["train", *SMALL]) == 0
    for words in (["barrier", "run", "--alphas", "3"], ["fuse", "run", "--alphas", "3"], ["landscape", "run", "--points", "3",
                   "--models", "0", "1", "origin"]):  # fmt: skip
        assert main(words) == 0


@pytest.mark.slow
@pytest.mark.parametrize("text", [NNX, LINEN, EQUINOX, PLAIN], ids=["nnx", "linen", "equinox", "plain"])
def test_every_framework_computes_in_bfloat16_and_keeps_its_parameters(here, text):
    Path("net.py").write_text(text)
    losses = []
    for precision in ("bf16", "float32"):
        assert main(["train", *SMALL, "--overwrite", "--precision", precision]) == 0
        models = read(Path("run/train.json"))["models"]
        losses.append([model["test_loss"] for model in models])
        assert main(["rebasin", "run", "--alphas", "3", "--methods", "weight"]) == 0
        rows = [row for row in read(Path("run/rebasin.json"))["rows"] if row["split"] == "test"]
        assert rows[0]["loss_path"][0] == pytest.approx(models[0]["test_loss"], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]
    assert main(["export", "run", "--model", "0"]) == 0


@pytest.mark.slow
def test_a_network_of_ones_own_is_matched_and_repaired(run, capsys):
    assert main(["rebasin", str(run), "--alphas", "3", "--methods", "weight"]) == 0
    kinds = {row["kind"] for row in read(run / "rebasin.json")["rows"]}
    assert kinds == {"unmatched", "weight matching", "weight matching + REPAIR"}
    assert main(["fuse", str(run), "--alphas", "3", "--repair"]) == 0
    assert read(run / "fuse.json")["options"]["repair"]


@pytest.mark.slow
def test_what_cannot_be_repaired_is_named(here, capsys):
    Path("net.py").write_text(AGAIN)
    assert main(["train", *SMALL]) == 0
    assert main(["rebasin", "run", "--alphas", "3", "--methods", "weight"]) == 0
    assert "without REPAIR: REPAIR does not go with net.py:create: " in " ".join(capsys.readouterr().err.split())
    assert "--repair: REPAIR does not go with net.py:create: " in fails(capsys, "fuse", "run", "--repair")


def test_code_of_a_run_is_not_run_unless_it_was_named_here_and_is_the_same(run, capsys):
    file = run.parent / "net.py"
    ran = run.parent / "ran"
    file.write_text(file.read_text() + f"\nopen({str(ran)!r}, 'w').close()\n")
    for words in (["barrier", "run"], ["fuse", "run"], ["landscape", "run"], ["rebasin", "run"], ["resume", "run"],
                  ["train", "--config", "run/config.json", "--out", "other"]):  # fmt: skip
        assert "has changed since the run" in fails(capsys, *words)
    trust.file().unlink()
    trust._NAMED.clear()
    file.write_text(NNX)
    for words in (["barrier", "run"], ["train", "--config", "run/config.json", "--out", "other"]):
        assert "never named by you on this machine" in fails(capsys, *words)
    config = read(run / "config.json")
    for change in ({"model_sha256": None}, {"model_sha256": ""}, {"trust_code": True}, {"model": "-m"},
                   {"model": [config["model"]], "model_sha256": None}, {"started_with": {"log": ["tensorboard", "--model", config["model"]]}},
                   {"started_with": {"trust_code": True}},
                   {"model_options": ["a=1", "--trust-code"]}, {"dataset": "--model=./net.py:create"}):  # fmt: skip
        file.write_text(NNX + f"\nopen({str(ran)!r}, 'w').close()\n")
        (run / "config.json").write_text(json.dumps({**config, **change}))
        fails(capsys, "train", "--config", "run/config.json", "--out", "other")
        fails(capsys, "resume", "run")
        if not {"trust_code", "started_with"} & set(change):
            fails(capsys, "barrier", "run")
    assert not ran.exists()
    (run / "config.json").write_text(json.dumps(config))
    fails(capsys, "train", "--config", "run/config.json", "--out", "other")
    assert not ran.exists()
    assert main(["barrier", "run", "--alphas", "3", "--trust-code"]) == 0
    assert ran.exists()
    assert main(["train", "--config", "run/config.json", "--model", "./net.py:create", "--out", "other"]) == 0


def test_a_changed_network_that_is_trusted_must_still_fit_the_run(run, capsys):
    Path("net.py").write_text(NNX.replace("Linear(64, width", "Linear(64, width, use_bias=False"))
    assert "does not fit this run" in fails(capsys, "barrier", "run", "--trust-code")
    Path("net.py").unlink()
    assert "cannot read" in fails(capsys, "barrier", "run", "--trust-code")


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (NNX, ["--model-options", "depth=3"], "--model-options depth: it takes width"),
        (NNX, ["--model-options", "depth"], "must be written KEY=VALUE"),
        (NNX, ["--depth", "3"], "takes --model-options depth=3"),
        (NNX.replace("width=8", "width"), [], "it needs --model-options width=..."),
        (NNX.replace("Linear(64", "Linear(63"), [], "it does not go with digits: "),
        ("def create():\n    return 3\n", [], "returned int, expected a Linen, NNX or Equinox module"),
        ("def create():\n    x = 1\n    raise KeyError('width')\n", [], r"KeyError: 'width' \(line 3 of "),
        (NNX.replace("*, rngs):\n    return Net(width, rngs=rngs)", "*, seed=0):\n    return Net(width, rngs=nnx.Rngs(0))"), [],
         "must take rngs"),
        (EQUINOX.replace("key, width=8", "width=8").replace("Net(width, key)", "Net(width, __import__('jax').random.key(0))"), [],
         "must take key"),
        (PLAIN.replace('({"w": ', '({}, ())\nx = lambda key: ({"w": '), [], "it has no parameters"),
        (PLAIN.replace("/ 8", "> 8"), [], "parameters must be floating-point, w are not"),
        (PLAIN.replace(", ())", ")"), [], r"must return \(params, state\)"),
        (PLAIN.replace("@ params", "@ params['b'] @ params"), [], "does not go with digits: KeyError"),
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_network_is_refused_in_one_line_before_training(here, capsys, text, words, message):
    Path("net.py").write_text(text)
    with pytest.raises(AssertionError, match=message):  # so that a pattern can be matched
        raise AssertionError(fails(capsys, "train", *SMALL, *words))
    assert not Path("run").exists()


def test_options_of_ours_are_not_for_shipped_networks(capsys):
    assert "for a network of your own" in fails(capsys, "train", "--model-options", "width=3")
    assert "or a network of your own" in fails(capsys, "train", "--model", "mlpp")
    assert "no module gone_module" in fails(capsys, "train", "--model", "gone_module:create")

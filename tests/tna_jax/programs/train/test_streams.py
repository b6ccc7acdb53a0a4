"""`tna train` on records: the models of the same arrays, and a run that is stopped inside an epoch ends as one that is not."""

import contextlib

import numpy as np
import pytest

pytest.importorskip("grain")

from tests.tna_jax.programs.commands import read
from tests.tna_jax.programs.stops import After
from tna_jax.io import write_records
from tna_jax.programs.cli.main import main
from tna_jax.programs.runs.folder import IN_EPOCH
from tna_jax.programs.training import ensembles, streams

SMALL = ["--members", "2", "--width", "8", "--depth", "1", "--epochs", "2", "--batch-size", "20"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (110, 6, 6), np.uint8)
    y = (x.reshape(110, -1) @ rng.normal(size=(36, 3))).argmax(1)
    write_records(tmp_path / "mine/train", zip(x[:90], y[:90], strict=True))
    write_records(tmp_path / "mine/test", zip(x[90:], y[90:], strict=True))
    np.savez(tmp_path / "mine.npz", x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:])
    return tmp_path


def train(name, *words):
    return main(["train", "--dataset", name, *SMALL, *words])


def models(run):
    return read(run / "train.json")["models"]


@pytest.mark.slow
def test_the_models_are_those_of_the_arrays(folder):
    assert train("mine.npz", "--out", "arrays") == 0
    assert train("records:mine", "--out", "records") == 0
    for a, b in zip(models(folder / "arrays"), models(folder / "records"), strict=True):
        assert a.keys() == b.keys()
        for key in ("test_loss", "train_loss", "test_accuracy"):
            assert a[key] == pytest.approx(b[key], rel=1e-4)
    for program in ("barrier", "fuse", "rebasin"):
        assert main([program, "records"]) == 0
    assert main(["landscape", "records", "--models", "0", "1", "origin", "--points", "3"]) == 0


@pytest.mark.slow
def test_a_run_that_is_stopped_inside_an_epoch_ends_as_one_that_is_not(folder, monkeypatch, capsys):
    assert train("records:mine", "--out", "whole") == 0
    monkeypatch.setattr(streams, "PART", 2)  # of 5 steps
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda _: contextlib.nullcontext(After(4)))
        assert train("records:mine", "--out", "stopped") == 130
    assert "stopped after 4 of 5 steps of epoch 2 of 2" in capsys.readouterr().err.replace("\n", " ")
    assert (folder / "stopped" / IN_EPOCH).is_dir()
    assert main(["resume", "stopped"]) == 0
    assert not (folder / "stopped" / IN_EPOCH).exists()
    assert models(folder / "stopped") == models(folder / "whole")


def test_a_folder_that_is_missing_its_records_is_one_line(folder, capsys):
    (folder / "mine/test/part-00000.array_record").write_bytes(b"junk")
    assert train("records:mine", "--out", "never") == 2
    assert "no ArrayRecord file, or damaged" in capsys.readouterr().err.replace("\n", " ")
    assert not (folder / "never").exists()

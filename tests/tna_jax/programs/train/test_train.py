"""`tna train` as a user runs it: waves, interruptions, networks with BatchNorm, refusals."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.commands import NINE, fails
from tests.tna_jax.programs.stops import After
from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.training import ensembles


def rows(run: Path) -> list[dict]:
    return json.loads((run / "barrier.json").read_text())["rows"]


@pytest.mark.slow
def test_what_does_not_fit_at_once_trains_in_waves_to_the_same_numbers(ensemble, tmp_path, capsys):
    out = tmp_path / "waves"
    assert main(["train", *NINE, "--out", str(out), "--memory-limit", "0.00175"]) == 0
    one, waves = (json.loads((run / "train.json").read_text()) for run in (ensemble, out))
    assert waves["provenance"]["waves"] == 2
    assert "9 models do not fit into 0.00175 GB at once: 2 waves of up to 8" in capsys.readouterr().err.replace(
        "\n", " "
    )
    assert waves["models"] == one["models"]
    refused = fails(capsys, "train", *NINE, "--out", str(tmp_path / "no"), "--memory-limit", "0.0001")
    assert "0.0001 GB may be used: --memory-limit 0.1 can help" in refused  # no smaller batch would do
    assert not (tmp_path / "no" / "train.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 2, 3])  # in the first wave, at its end, in the second
def test_waves_that_were_interrupted_go_on_to_the_same_numbers(ensemble, tmp_path, monkeypatch, epochs):
    out = tmp_path / "waves"
    words = ["train", *NINE, "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(epochs)))
        assert main([*words, "--memory-limit", "0.00175"]) == 130
    assert not (out / "train.json").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == epochs + 1
    assert main([*words, "--resume"]) == 0  # more memory than before: the waves stay as they were
    found, whole = (json.loads((run / "train.json").read_text()) for run in (out, ensemble))
    assert found["models"] == whole["models"]
    assert found["provenance"]["waves"] == 2
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == list(range(6))


@pytest.mark.slow
def test_a_network_with_batch_norm_goes_the_whole_way(tmp_path):
    try:
        data.load("mnist")
    except data.DataError as error:
        pytest.skip(str(error))
    out = tmp_path / "norm"
    words = [
        "--dataset",
        "mnist",
        "--model",
        "cnn",
        "--norm",
        "batch",
        "--train-examples",
        "64",
        "--test-examples",
        "30",
    ]
    run = ["--epochs", "1", "--members", "2", "--batch-size", "32", "--augment", "crop-flip", "--out", str(out)]
    assert main(["train", *words, *run]) == 0
    assert main(["barrier", str(out), "--alphas", "3", "--calibration-examples", "32"]) == 0
    result, found = json.loads((out / "train.json").read_text()), rows(out)
    assert result["provenance"]["placement"] == "loop"
    assert found[1]["accuracy_path"][0] == pytest.approx(result["models"][0]["test_accuracy"])
    assert np.isfinite(found[1]["loss_path"]).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --members 0", "--members must be at least 1"),
        ("train --ratio 1", "--ratio must lie in [0, 1)"),
        ("train --init diferent", "did you mean 'different'"),
        ("train --model resnet21", "or 'resnet20'"),
        ("train --model cnn", "the CNN needs images with sides of at least 18, got 8 x 8"),
        ("train --model resnet20 --depth 3", "depth"),
        ("train --model mlp --groups 2", "groups"),
        ("train --model resnet20 --norm bach", "batch"),
        ("train --precision bf6", "did you mean 'bf16'"),
        ("train --augment crop_flip", "did you mean 'crop-flip'"),
        ("train --memory-limit 0", "--memory-limit must be above 0"),
        ("train --coordinator here:1", "give all three"),
        ("train --coordinator here:1 --num-processes 2 --process-id 2", "--process-id must lie in 0 to 1, got 2"),
    ],
)
def test_bad_options_are_answered_in_one_line(ensemble, capsys, words, expected):
    message = fails(capsys, *words.replace(" RUN", f" {ensemble}").split())
    assert expected in message
    assert "Traceback" not in message


def copied(run: Path, to: Path, **config) -> Path:
    """A run as it was before it came to its end, if more epochs are asked for; no results."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("barrier.*", "train.json"))
    found = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**found, **config}))
    return to


def test_imported_models_do_not_go_on(ensemble, tmp_path, capsys):
    run = copied(ensemble, tmp_path / "run", program="import")
    assert "holds imported models, which do not train: tna fuse" in fails(capsys, "resume", str(run))

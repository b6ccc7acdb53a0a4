"""`tna federate --objective regression`: scored by its loss, with the metrics of the objective in table, figure and JSON."""

import json
from pathlib import Path

import numpy as np
import pytest

from tna_jax.programs.cli.main import main


def data() -> str:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 4)).astype(np.float32)
    np.savez("line.npz", x_train=x, y_train=x.sum(1, keepdims=True), client_train=np.arange(240) % 5)
    return "line.npz"


@pytest.mark.slow
def test_a_regression_of_natural_clients(capsys):
    words = ["federate", "--dataset", data(), "--objective", "regression", "--partition", "natural", "--rounds", "20", "--depth", "1",
             "--width", "16", "--learning-rate", "0.02", "--anchors", "none", "pfn", "--out", "out"]  # fmt: skip
    assert main(words) == 0
    found = json.loads(Path("out/federate.json").read_text())
    assert found["metrics"][0]["name"] == "loss"
    for run in found["runs"]:
        assert run["loss"][-1] < run["loss"][0] and run["score"] == pytest.approx(np.mean(run["loss"][-5:]))
        assert run["absolute_error"][-1] < 1 and set(run["accuracy"]) == {None} and run["by_client"] == {}
    shown = " ".join(capsys.readouterr().out.split())
    assert "absolute error of the server's model" in shown and "accuracy" not in shown
    assert main(["report", "out", "-o", "page.html"]) == 0 and main(["runs", "."]) == 0
    assert "loss 0." in capsys.readouterr().out


def test_a_partition_by_classes_is_refused(capsys):
    assert (
        main(
            [
                "federate",
                "--dataset",
                data(),
                "--objective",
                "regression",
                "--clients",
                "4",
                "--depth",
                "1",
                "--width",
                "4",
            ]
        )
        == 2
    )
    assert "iid and natural take any targets" in capsys.readouterr().err.replace("\n", " ")
    assert main(["federate", "--dataset", data(), "--objective", "regression", "--algorithm", "fedlc"]) == 2
    assert "FedLC is defined for classification only" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
def test_a_regression_that_learns_nothing_in_fewer_rounds_than_the_patience_ends_with_1(capsys):
    words = ["federate", "--dataset", data(), "--objective", "regression", "--partition", "iid", "--clients", "4", "--rounds", "3", "--depth", "1",
             "--width", "8", "--learning-rate", "1e20", "--anchors", "pfn", "--out", "out"]  # fmt: skip
    assert main(words) == 1
    assert "what it did is saved" in " ".join(capsys.readouterr().err.split())
    assert Path("out/federate.json").exists()

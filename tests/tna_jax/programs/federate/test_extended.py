"""A run that is extended ends with the bytes of one that was asked for its rounds at first; and stops that are no failure."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.federate.test_federate import TINY, final, result
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.federate import health
from tna_jax.programs.federate import rounds as federate_run
from tna_jax.programs.federate.stages import Stages, extend, keep
from tna_jax.programs.runs.folder import Run

WORDS = [*TINY, "--algorithm", "scaffold", "--server", "fedavgm", "--participation", "0.6"]


def test_the_steps_of_an_extended_run():
    stages = Stages(2, (2, 3))
    assert [stages.at(step)[:2] for step in range(stages.steps)] == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]
    assert [stages.at(step)[2:] for step in (0, 3, 4)] == [(0, 2), (0, 2), (2, 3)]
    with pytest.raises(IndexError):
        stages.at(6)


def test_a_run_that_is_being_extended_is_never_called_finished(tmp_path, monkeypatch):
    """Killed between two of the files that are changed: it is the run of before, or one that is not finished."""
    files = {
        "config.json": {"program": "federate", "rounds": 2},
        "plan.json": {"models": [{}], "at_once": 1},
        "federate.json": {},
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))

    def stopped(path, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stopped)
        with pytest.raises(KeyboardInterrupt):
            extend(Run(tmp_path), 4, ("federate.json",))
    assert json.loads((tmp_path / "config.json").read_text())["rounds"] == 2
    extend(Run(tmp_path), 4, ("federate.json",))
    assert (
        json.loads((tmp_path / "config.json").read_text())["rounds"] == 4 and not (tmp_path / "federate.json").exists()
    )


def test_an_end_without_room_says_how_to_go_on(tmp_path):
    (tmp_path / "ends").write_text("")
    with pytest.raises(
        UsageError, match=r"cannot write .*ends/2/0.safetensors: .*; what was saved before is intact; mend that, then: "
    ):
        keep(Run(tmp_path), 0, 2, {"w": np.ones(3, np.float32)})
    (tmp_path / "ends").unlink()
    (tmp_path / "ends" / "2" / "0.safetensors").mkdir(parents=True)
    with pytest.raises(
        UsageError, match=r"cannot write .*ends/2/0.safetensors: .*; what was saved before is intact; mend that, then: "
    ):
        keep(Run(tmp_path), 0, 2, {"w": np.ones(3, np.float32)})


def same_but(first: str, second: str) -> None:
    arrays, others = final(first), final(second)
    assert list(arrays) == list(others)
    for name, array in arrays.items():
        assert array.tobytes() == others[name].tobytes(), name
    assert result(first)["runs"] == result(second)["runs"]


@pytest.mark.slow
def test_a_run_is_extended_twice_to_the_same_bytes(monkeypatch):
    """Finished, then interrupted in its second stage, then extended again while it is not finished."""
    assert main([*WORDS, "--rounds", "5", "--out", "whole"]) == 0
    assert main([*WORDS, "--rounds", "2", "--checkpoint-every", "1", "--out", "cut"]) == 0
    rounds, machine = [], federate_run._Machine.round

    def stops(self, progress, run, line, number, step):
        rounds.append(step)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return machine(self, progress, run, line, number, step)

    monkeypatch.setattr(federate_run._Machine, "round", stops)
    assert main(["resume", "cut", "--rounds", "4"]) == 130
    monkeypatch.setattr(federate_run._Machine, "round", machine)
    assert not Path("cut/federate.json").exists()
    assert json.loads(Path("cut/config.json").read_text())["rounds"] == 4
    assert main(["resume", "cut", "--rounds", "5"]) == 0
    assert json.loads(Path("cut/rounds.json").read_text())["rounds"] == [2, 4, 5]
    same_but("whole", "cut")


@pytest.mark.slow
def test_one_run_is_extended_and_what_cannot_be_is_said(capsys):
    one = [*TINY, "--anchors", "pfn"]
    assert main([*one, "--rounds", "3", "--out", "whole"]) == 0
    assert main([*one, "--rounds", "1", "--out", "short"]) == 0
    assert main(["resume", "short", "--rounds", "3"]) == 0
    same_but("whole", "short")
    assert main([*one, "--rounds", "3", "--overwrite", "--out", "short"]) == 0  # nothing of the extended one is left
    assert json.loads(Path("short/rounds.json").read_text())["rounds"] == [3]
    same_but("whole", "short")
    capsys.readouterr()
    assert main(["resume", "short", "--rounds", "2"]) == 2
    assert "has 3 already" in capsys.readouterr().err.replace("\n", " ")
    assert (
        main(
            ["lmc", "--dataset", "digits", "--train-examples", "100", "--epochs", "1", "--depth", "1", "--out", "other"]
        )
        == 0
    )
    assert main(["resume", "other", "--rounds", "2"]) == 2
    assert "extends runs of tna federate" in capsys.readouterr().err.replace("\n", " ")


def test_a_run_stalls_when_its_best_is_long_ago():
    accuracy = np.array([0.1, 0.5, 0.4, 0.45])
    assert health.stalled(accuracy, None) == "" and health.stalled(accuracy, 3) == ""
    assert "best after round 2 (0.5000), 2 rounds ago" in health.stalled(accuracy, 2)
    assert health.stalled(np.array([0.1, 0.1]), 1) and not health.stalled(np.array([0.1, 0.2]), 1)


@pytest.mark.slow
def test_a_stalled_run_is_no_failure(capsys):
    words = [*TINY, "--anchors", "none", "--learning-rate", "1e-12", "--patience", "2", "--rounds", "6", "--out", "out"]
    assert main(words) == 0
    (run,) = result("out")["runs"]
    assert run["stopped_after_round"] == 3 and run["stalled"] and len(set(run["accuracy"])) == 1
    assert "its accuracy grew no more" in " ".join(capsys.readouterr().out.split())

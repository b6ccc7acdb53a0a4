"""Every experiment opens with its contract, and its committed result can be drawn and tabled again."""

import importlib
import json
import subprocess

import pytest

from fusion import __main__ as fusion
from tests.figures import assert_shows_data
from tests.parameters import slow_but
from tna_jax.io import provenance
from train import __main__ as train
from train import experiments, figure4

NAMES = [("train", name) for name in train.NAMES] + [("fusion", name) for name in fusion.NAMES]


QUICK = [("fusion", "soup"), ("train", "depth"), ("train", "figure5")]


@pytest.mark.parametrize(("room", "name"), NAMES)
def test_an_experiment_opens_with_its_contract(room, name):
    text = importlib.import_module(f"{room}.{name}").__doc__
    for part in ("shows", "hardware", "expected", "command"):
        assert part in text.lower(), part
    assert f"python -m {room} {name}" in text


@pytest.mark.parametrize(("room", "name"), slow_but(QUICK, NAMES))
def test_a_committed_result_has_its_provenance_and_is_drawn_again(room, name, tmp_path, capsys, figures):
    module = importlib.import_module(f"{room}.{name}")
    result = json.loads((experiments.ROOT / room / "results" / f"{name}.json").read_text())
    assert {"commit", "versions", "device"} <= set(result["provenance"])
    module.figure(result, tmp_path / "again.png")
    (figure,) = figures
    assert_shows_data(figure)
    module.table(result)
    assert len(capsys.readouterr().out.splitlines()) > 5


def run(*words):
    return experiments.main("train", train.NAMES, train.GROUPS, words)


def test_what_is_committed_is_drawn_without_computing(tmp_path, monkeypatch, capsys, figures):
    folder = tmp_path / "train" / "results"
    folder.mkdir(parents=True)
    before = (experiments.ROOT / "train" / "results" / "figure4.json").read_bytes()
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    monkeypatch.setattr(figure4, "run", None)
    assert run("figure4", "--draw") == 2
    assert "there is no train/results/figure4.json" in capsys.readouterr().err
    (folder / "figure4.json").write_bytes(before)
    assert run("figure4", "--draw") == 0
    assert (folder / "figure4.json").read_bytes() == before
    (figure,) = figures
    assert_shows_data(figure)
    assert (folder / "figure4.png").exists()


def test_an_unknown_experiment_is_answered_with_the_nearest(capsys):
    assert run("figur2") == 2
    assert "did you mean 'figure2'" in capsys.readouterr().err
    assert run() == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in train.NAMES)


def test_data_that_are_not_there_are_named_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TNA_DATA_DIR", str(tmp_path))
    assert run("record", "--minutes", "0") == 2
    assert capsys.readouterr().err.startswith("python -m train: mnist was not found; looked in")


def test_the_commit_of_a_result_says_whether_code_was_edited_not_whether_results_were(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    files = [tmp_path / name for name in ("tna_jax/io/provenance.py", "fusion/cold.py", "fusion/results/cold.json")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(provenance, "__file__", str(files[0]))
    head = git("rev-parse", "HEAD")
    assert provenance.commit() == head
    files[2].write_text("2\n")
    assert provenance.commit() == head
    files[1].write_text("2\n")
    assert provenance.commit() == f"{head}+changes"
    files[1].unlink()
    assert provenance.commit() == f"{head}+changes"
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "deeper" / "still" / "results" / "deeper.py"))
    assert provenance.commit() == "unknown"

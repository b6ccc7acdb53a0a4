"""Every experiment opens with its contract, and its committed result can be drawn and tabled again."""

import importlib
import json
import subprocess

import pytest

import experiments.__main__ as experiments
from experiments import figure4
from experiments.__main__ import NAMES, RESULTS, main
from train import results


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_opens_with_its_contract(name):
    text = importlib.import_module(f"experiments.{name}").__doc__
    for part in ("shows", "hardware", "expected", "command"):
        assert part in text.lower(), part
    assert f"python -m experiments {name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_result_has_its_provenance_and_is_drawn_again(name, tmp_path, capsys):
    module = importlib.import_module(f"experiments.{name}")
    result = json.loads((RESULTS / f"{name}.json").read_text())
    assert {"commit", "versions", "device"} <= set(result["provenance"])
    module.figure(result, tmp_path / "again.png")
    assert (tmp_path / "again.png").stat().st_size > 10_000
    module.table(result)
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_what_is_committed_is_drawn_without_computing(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "experiments" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(experiments, "RESULTS", folder)
    monkeypatch.setattr(figure4, "run", None)
    assert main(["figure4", "--draw"]) == 2
    assert "there is no experiments/results/figure4.json" in capsys.readouterr().err
    before = (RESULTS / "figure4.json").read_bytes()
    (folder / "figure4.json").write_bytes(before)
    assert main(["figure4", "--draw"]) == 0
    assert (folder / "figure4.json").read_bytes() == before
    assert (folder / "figure4.png").stat().st_size > 10_000


def test_an_unknown_experiment_is_answered_with_the_nearest(capsys):
    assert main(["figur2"]) == 2
    assert "did you mean 'figure2'" in capsys.readouterr().err
    assert main([]) == 0
    assert all(name in capsys.readouterr().out for name in ("figure2",))


def test_the_commit_of_a_result_says_whether_code_was_edited_not_whether_results_were(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    files = [tmp_path / name for name in ("train/results.py", "experiments/cold.py", "experiments/results/cold.json")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(results, "__file__", str(files[0]))
    head = git("rev-parse", "HEAD")
    assert results.commit() == head
    files[2].write_text("2\n")
    assert results.commit() == head
    files[1].write_text("2\n")
    assert results.commit() == f"{head}+changes"
    files[1].unlink()
    assert results.commit() == f"{head}+changes"
    monkeypatch.setattr(results, "__file__", str(tmp_path / "experiments" / "results" / "deeper.py"))
    assert results.commit() == "unknown"

"""Every experiment opens with its contract, and its committed result can be drawn and tabled again."""

import importlib
import json

import pytest

from experiments.__main__ import NAMES, RESULTS, main


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


def test_an_unknown_experiment_is_answered_with_the_nearest(capsys):
    assert main(["figur2"]) == 2
    assert "did you mean 'figure2'" in capsys.readouterr().err
    assert main([]) == 0
    assert all(name in capsys.readouterr().out for name in ("figure2",))

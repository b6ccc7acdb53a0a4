"""`tna federate` without options: a setting of its own, said as a command, in which anchors add accuracy beyond chance."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.main import main
from tna_jax.programs.federate import demonstration
from tna_jax.programs.federate.options import FederateOptions


def test_only_a_command_without_options_is_the_demonstration():
    plain = FederateOptions()
    assert demonstration.is_asked_for(dataclasses.replace(plain, out="here", overwrite=True, memory_limit=1.0))
    for changed in ({"seeds": 2}, {"dataset": "digits"}, {"ratio": 0.5}, {"list": True}):
        assert not demonstration.is_asked_for(dataclasses.replace(plain, **changed))
    assert not demonstration.is_asked_for(demonstration.demonstration(plain))  # as a run's configuration holds it


def test_the_command_that_is_printed_says_all_of_it():
    words = demonstration.command().split()
    assert words[:2] == ["tna", "federate"]
    said = parsing.parse(FederateOptions, words[2:], "federate")
    assert said == demonstration.demonstration(FederateOptions())


@pytest.mark.slow
def test_anchors_add_accuracy_beyond_chance(capsys):
    assert main(["federate", "--out", "run"]) == 0
    runs = json.loads(Path("run/federate.json").read_text())["runs"]
    scores = {kind: np.array([run["score"] for run in runs if run["anchors"] == kind]) for kind in ("none", "pfn")}
    gains = scores["pfn"] - scores["none"]
    assert len(gains) == 10 and gains.mean() > 0
    # paired, whatever this processor's rounding makes of each seed
    assert scipy.stats.ttest_1samp(gains, 0).pvalue < 0.05
    shown = capsys.readouterr()
    assert "this is the demonstration" in " ".join(shown.err.split())
    assert f"{gains.mean():+.4f} ± {gains.std(ddof=1):.4f}" in shown.out

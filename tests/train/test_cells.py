"""Cells of experiments: computed once, gone on with where they stopped, summed up with their spread."""

import json

import pytest

from tna_jax.programs.cli.progress import Interrupted
from tna_jax.programs.lmc import run as lmc
from tna_jax.programs.lmc.options import LmcOptions
from train import cells

SMALL = LmcOptions(depth=1, width=8, seeds=2, ratios=(0.0, 0.5), epochs=2, alphas=(3.0,), init="same", methods=("tna",))


@pytest.mark.slow
def test_a_finished_cell_is_not_computed_again_and_another_setting_is(monkeypatch):
    first = cells.cell("e", "a", SMALL)
    calls = []
    monkeypatch.setattr(
        lmc, "run", lambda settings: calls.append(settings) or json.loads((cells.RUNS / "e/a/lmc.json").read_text())
    )
    assert cells.cell("e", "a", SMALL) == first
    assert calls == []
    other = LmcOptions(**{**vars(SMALL), "epochs": 3})
    cells.cell("e", "a", other)
    assert (calls[0].overwrite, calls[0].resume) == (True, False)


@pytest.mark.slow
def test_an_interrupted_cell_goes_on_where_it_stopped(monkeypatch):
    whole = cells.cell("e", "whole", SMALL)
    train = lmc.ensembles.train

    def stops(*arguments):
        train(*arguments)
        raise Interrupted

    monkeypatch.setattr(lmc.ensembles, "train", stops)
    with pytest.raises(Interrupted):
        cells.cell("e", "cut", SMALL)
    monkeypatch.setattr(lmc.ensembles, "train", train)
    seen = []
    run = lmc.run
    monkeypatch.setattr(lmc, "run", lambda settings: seen.append(settings.resume) or run(settings))
    assert cells.cell("e", "cut", SMALL)["rows"] == whole["rows"]
    assert seen == [True]


@pytest.mark.slow
def test_an_option_that_came_later_counts_as_its_default():
    cells.cell("e", "a", SMALL)
    file = cells.RUNS / "e/a/lmc.json"
    result = json.loads(file.read_text())
    del result["config"]["anchor_scale"]
    assert cells._same(result["config"], {**result["config"], "anchor_scale": 1.0}, LmcOptions())
    assert not cells._same(result["config"], {**result["config"], "anchor_scale": 2.0}, LmcOptions())


def test_the_summary_is_the_mean_and_sample_deviation_without_diverged_pairs():
    rows = [
        {"init": "same", "method": "tna", "ratio": 0.4, "accuracy_ends": [a, a], "accuracy_midpoint": a,
         "accuracy_barrier": 0.0, "loss_barrier": 0.0, "loss_path": path}
        for a, path in ((0.8, [1.0]), (0.9, [1.0]), (0.1, [None]))
    ]  # fmt: skip
    (line,) = cells.summary(rows)
    assert (line["n"], line["diverged"]) == (2, 1)
    assert line["accuracy_ends"] == pytest.approx([0.85, 0.0707107])
    assert cells.measured(line, "accuracy_ends") == "0.850 ± 0.071"
    (alone,) = cells.summary(rows[:1])
    assert cells.measured(alone, "accuracy_ends") == "0.800"  # one pair has no spread

"""Averages of the best k models: which models they are of, their rows, and the figure with its sampling error."""

import json
from pathlib import Path

import numpy as np
import pytest

from tna_jax.averaging import GreedySoup
from tna_jax.metrics import Metrics
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.reports import kinds
from tna_jax.programs.reports.by_count import by_count
from tna_jax.programs.reports.figures import COUNTED
from tna_jax.programs.reports.measures import ACCURACY, LOSS
from tna_jax.programs.reports.statistics import standard_error

EARLIER = Path(__file__).parent / "earlier" / "fuse.json"


def mix_of(asked):
    """Averages whose number of correct examples is their number of models."""

    def mix(weights, data):
        asked.append(weights)
        count = len(weights)
        return {split: Metrics(np.ones(count), (weights > 0).sum(1), np.full(count, 100)) for split in data}

    return mix


def test_averages_are_of_the_best_models_first():
    asked = []
    averages = fusion_methods.averages_by_count([2, 0, 3, 1], 4, mix_of(asked), {"test": ()})
    assert asked[0].tolist() == [[0.5, 0, 0.5, 0], pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])]
    assert {k: metrics["test"].correct for k, metrics in averages.items()} == {2: 2, 3: 3}
    assert fusion_methods.averages_by_count([1, 0], 2, mix_of(asked), {"test": ()}) == {} and len(asked) == 1
    many = fusion_methods.averages_by_count(range(100), 100, mix_of(asked), {"test": ()})
    assert len(many) == fusion_methods.COUNTS and min(many) == 2 and max(many) == 99
    left_out = fusion_methods.averages_by_count([1, 2], 3, mix_of(asked), {"test": ()})  # one was not finite
    assert list(left_out) == [2] and asked[-1].tolist() == [[0, 0.5, 0.5]]


def test_the_ends_are_the_best_single_model_and_the_average_of_all():
    members = {"test": Metrics(np.ones(3), np.array([10.0, 30.0, 20.0]), np.full(3, 100))}
    uniform = {"test": Metrics(np.float32(1), np.float32(60), np.int32(100))}
    averages = {2: {"test": Metrics(np.float32(1), np.float32(50), np.int32(100))}}
    recipe = GreedySoup(np.ones(3, np.float32), 0.6, [])
    found = fusion_methods.Fusions(members, 1, uniform, uniform, recipe, uniform, averages)
    rows = fusion_methods.rows_by_count(found)
    assert [(row["models"], round(row["accuracy"], 6), row["examples"]) for row in rows] == [
        (1, 0.3, 100),
        (2, 0.5, 100),
        (3, 0.6, 100),
    ]


def rows(*values, examples=400, seeds=1):
    return [{"models": k, "split": "test", "examples": examples, "accuracy": value + 0.01 * seed, "loss": 1 - value}
            for seed in range(seeds) for k, value in enumerate(values, 1)]  # fmt: skip


def test_the_figure_draws_what_chance_makes_of_so_many_examples():
    figure = by_count({"averages": rows(0.9, 0.91, 0.9)}, ACCURACY, "test", {})
    (curve,) = figure.curves
    assert figure.xaxis in COUNTED  # ticks are whole numbers
    assert curve.x == [1, 2, 3] and curve.y == [0.9, 0.91, 0.9] and curve.std is None
    error = standard_error(0.9, 400)
    assert figure.chance.std == pytest.approx([2 * error] * 3) and "400 examples" in figure.chance.name
    low, high = figure.yspan()
    assert high - low == pytest.approx(8 * error)  # a hundredth does not fill the axis
    loss = by_count({"averages": rows(0.9, 0.91)}, LOSS, "test", {})
    assert loss.chance is None and loss.curves[0].y == pytest.approx([0.1, 0.09])


def test_means_are_over_seeds_and_what_diverged_is_left_out():
    spread = by_count({"a": rows(0.5, 0.6, seeds=2)}, ACCURACY, "test", {}).curves[0]
    assert spread.y == pytest.approx([0.505, 0.605]) and spread.std == pytest.approx([np.std([0, 0.01], ddof=1)] * 2)
    bad = [*rows(0.5), {"models": 2, "split": "test", "examples": 400, "accuracy": 0.0, "loss": None}]
    assert by_count({"a": bad}, ACCURACY, "test", {}).curves[0].y == [0.5, None]


def test_the_report_of_tna_fuse_has_it_where_the_file_does():
    result = json.loads(EARLIER.read_text())
    described = kinds.describe(EARLIER, {**result, "by_count": rows(0.8, 0.9, 0.95)}, "test")
    figure = next(figure for figure in described.figures if "number of models" in figure.title)
    assert figure.curves[0].y == [0.8, 0.9, 0.95] and figure.chance.y == [0.8] * 3
    before = kinds.describe(EARLIER, result, "test").figures
    assert not any("number of models" in figure.title for figure in before)

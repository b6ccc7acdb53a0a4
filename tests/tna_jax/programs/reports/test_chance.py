"""Differences that chance alone makes do not fill a figure: axes of a sensible length, standard errors, long names over several lines."""

import numpy as np
import pytest

from tna_jax.programs.reports import terminal
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import Curve, Curves, Dot, Dots, Matrix
from tna_jax.programs.reports.measures import ACCURACY, LOSS
from tna_jax.programs.reports.paths import chance, kind_paths
from tna_jax.programs.reports.statistics import standard_error

ROW = {"pair": [0, 1], "kind": "unmatched", "split": "test", "examples": 400, "accuracy_path": [0.9, 0.8975, 0.9],
       "loss_path": [0.3, 0.31, 0.3]}  # fmt: skip


def test_the_standard_error_is_that_of_a_binomial_share():
    draws = np.random.default_rng(0).binomial(400, 0.9, 20_000) / 400
    assert standard_error(0.9, 400) == pytest.approx(draws.std(), rel=0.02)
    assert standard_error(1.0, 400) == 0.0 and np.isnan(standard_error(0.5, 0))


def test_one_test_image_is_a_small_part_of_the_axis_and_lies_within_chance():
    figure = kind_paths([0, 0.5, 1], {"unmatched": [ROW]}, {}, ACCURACY, "test")
    low, high = figure.yspan()
    assert high - low == pytest.approx(8 * 0.015) and low < 0.8975 < high
    middle, error = figure.chance.y[1], figure.chance.std[1]
    assert (middle, error) == (pytest.approx(0.9), pytest.approx(0.03)) and abs(0.8975 - middle) < error
    assert (
        kind_paths(
            [0, 0.5, 1], {"unmatched": [{**ROW, "accuracy_path": [0.9, 0.5, 0.9]}]}, {}, ACCURACY, "test"
        ).yspan()
        is None
    )


def test_ends_that_diverged_have_no_straight_line():
    row = {**ROW, "accuracy_path": [0.9, None, None]}
    assert kind_paths([0, 0.5, 1], {"unmatched": [row]}, {}, ACCURACY, "test").chance is None


def test_a_loss_begins_at_zero_and_has_no_chance_that_is_known():
    figure = kind_paths([0, 0.5, 1], {"unmatched": [ROW]}, {}, LOSS, "test")
    assert figure.from_zero and figure.chance is None and figure.png and chance([ROW], LOSS) is None
    negative = kind_paths([0, 0.5, 1], {"unmatched": [{**ROW, "loss_path": [-1.0, -0.5, -1.0]}]}, {}, LOSS, "test")
    assert not negative.from_zero


def test_axes_span_at_least_what_they_are_told():
    dots = Dots(title="t", alt="a", dots=[Dot("a", 0.5), Dot("b", 0.51, singles=[0.5, 0.52])], what="w", least=0.1)
    assert dots.span() == pytest.approx((0.46, 0.56))
    assert Dots(title="t", alt="a", dots=dots.dots, what="w", least=0.01).span() is None
    assert Dots(title="t", alt="a", dots=dots.dots, what="w", least=float("nan")).span() is None
    curves = Curves(title="t", alt="a", curves=[Curve("c", [0, 1], [None, 2.0])], xaxis="x", yaxis="y", least=2)
    assert curves.yspan() == (1.0, 3.0)
    matrix = Matrix(title="t", alt="a", names=["0", "1"], values={(0, 1): 0.02}, what="w", least=0.1)
    assert matrix.top == 0.1 and Matrix(title="t", alt="a", names=["0", "1"], values={(0, 1): 0.2}, what="w").top == 0.2


@pytest.mark.parametrize(("width", "pieces"), [(60, 3), (80, 2), (200, 1)])
def test_long_names_go_over_several_lines_where_more_columns_find_room(width, pieces, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [[name, *["0.9028 ± 0.0395"] * 6] for name in ("unmatched", "activation matching + REPAIR")]
    terminal.show_table(Table("paths", ["", *[f"head {i}" for i in range(6)]], rows))
    text = capsys.readouterr().out
    assert text.count("unmatched") == pieces and max(map(len, text.splitlines())) <= width
    assert text.count("+ REPAIR") == pieces

"""The figure of an average against the number of models in it: the best on held-out examples first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tna_jax.programs.reports.divergence import is_finite
from tna_jax.programs.reports.figures import COUNTED, Curve, Curves
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import finite_mean_std, number, standard_error

Row = Mapping[str, Any]
"""`models` (how many), `examples`, and every measure by its name."""


def by_count(groups: Mapping[str, Sequence[Row]], measure: Measure, split: str, colors: Mapping[str, str]) -> Curves:
    """Returns the figure: a curve for each group, its mean and spread over the rows of one number of models.

    Of an accuracy there is a band too, in which averages lie by chance alone that are no better than the single models of the first group.

    Args:
      groups: rows by the name of their curve.
      measure: what is drawn.
      split: the examples that it is of.
      colors: by the name of the curve.
    """
    name, curves = measure.name, []
    for group, rows in groups.items():
        counts = sorted({row["models"] for row in rows})
        stats = [
            finite_mean_std(number(row[name]) for row in rows if row["models"] == count and is_finite(row))
            for count in counts
        ]
        curves.append(Curve.of(group, counts, stats, color=colors.get(group, "")))
    x = sorted({x for curve in curves for x in curve.x})
    examples = max(row["examples"] for rows in groups.values() for row in rows)
    single = number(curves[0].y[0])
    error = standard_error(single, examples) if name == "accuracy" and np.isfinite(single) else None
    chance = None
    if error is not None:
        chance = Curve(f"best single model, ± 2 standard errors of {examples:,} examples", x, [single] * len(x), [2 * error] * len(x))  # fmt: skip
    return Curves(
        title=f"{measure.title} against the number of models averaged",
        alt=f"Line chart of the {split} {measure.label} of averages of 1 to {max(x):g} models, the best on held-out examples first: {', '.join(groups)}.",
        curves=curves, xaxis=COUNTED[-1], yaxis=f"{split} {measure.label}",
        spread="bars", chance=chance, least=8 * (error or 0.0),
    )  # fmt: skip

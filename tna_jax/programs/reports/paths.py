"""Figures and tables of the paths between pairs of models, which `tna barrier`, `tna rebasin` and `tna fuse` share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import (
    finite_mean_std,
    format_spread,
    mean_std_columns,
    number,
    standard_error,
)
from tna_jax.programs.reports.wording import ALPHA

MANY = 40
"""Paths above this number are drawn as their mean and spread alone."""
UNMATCHED = "unmatched"
REPAIRED = " + REPAIR"
"""How the name of a kind of path ends, whose points were repaired."""
Kinds = Mapping[str, list[dict[str, Any]]]
"""The rows of the pairs, by kind of path."""


def pair_paths(alphas: list[float], rows: list[dict[str, Any]], measure: Measure, split: str) -> Curves:
    """Describes every pair's path as a thin line, and their mean."""
    x, paths = [round(alpha, 6) for alpha in alphas], [row[f"{measure.name}_path"] for row in rows]
    thin = [Curve("-".join(map(str, row["pair"])), x, path, color="c1", thin=True, group="every pair")
            for row, path in zip(rows, paths, strict=True) if 1 < len(rows) <= MANY]  # fmt: skip
    return _figure(
        [*thin, Curve.of("mean", x, mean_std_columns(paths), color="c2", label=f"mean of {plural(len(rows), 'pair')}")],
        measure,
        split,
        "pairs of models",
    )


def kind_paths(
    alphas: list[float],
    kinds: Kinds,
    colors: Mapping[str, str],
    measure: Measure,
    split: str,
    compared: bool = True,
) -> Curves:
    """Describes the mean path of the pairs of each kind, beside what chance alone would make of a straight one.

    Ends differ from pair to pair, so the spread over pairs is in the table alone. Paths after REPAIR are dashed. The axis of a
    measure that cannot be negative begins at 0, unless large values are good; that of an accuracy spans at least eight standard
    errors.
    """
    x = [round(alpha, 6) for alpha in alphas]
    lines = [Curve.of(kind, x, mean_std_columns([row[f"{measure.name}_path"] for row in rows]), color=colors.get(kind, ""),
                   dash="dash" if REPAIRED in kind else "solid") for kind, rows in kinds.items()]  # fmt: skip
    first, *_ = kinds.values()
    error = chance(first, measure)
    straight = None
    left, right = (finite_mean_std(_ends(row, measure)[i] for row in first).mean for i in (0, 1))
    if error is not None and np.isfinite(left + right):
        y: list[float | None] = [(1 - alpha) * left + alpha * right for alpha in x]
        straight = Curve(f"no barrier, {chance_words(first)}", x, y, [2 * error] * len(x))
    below = [value for line in lines for value in line.y if value is not None and value < 0]
    return _figure(
        lines, measure, split, f"kinds of paths: {', '.join(kinds)}", "numbers",
        png=True, chance=straight, least=8 * (error or 0.0), from_zero=not measure.larger_is_better and not below,
        compared=compared,
    )  # fmt: skip


def chance(rows: Sequence[dict[str, Any]], measure: Measure) -> float | None:
    """Returns the standard error of an accuracy at the ends of the paths; None of measures whose spread over examples is not known."""
    if measure.name != "accuracy" or not rows or "examples" not in rows[0]:
        return None
    mean = finite_mean_std(value for row in rows for value in _ends(row, measure)).mean
    return standard_error(mean, rows[0]["examples"]) if np.isfinite(mean) else None


def chance_words(rows: Sequence[dict[str, Any]]) -> str:
    """Returns what is drawn as chance, in words."""
    return f"± 2 standard errors of {rows[0]['examples']:,} examples"


def kind_table(caption: str, alphas: list[float], kinds: Kinds, measured: Sequence[Measure]) -> Table:
    """Returns ends, midpoint and barrier by every measure, a row for each kind of path: mean and spread over the pairs."""
    heads = [head for measure in measured for head in (measure.label_of(", ends"), measure.label_of(", midpoint"), measure.label_of(" barrier"))]  # fmt: skip
    middle = alphas.index(0.5)

    def values(row: dict[str, Any], measure: Measure) -> list[float]:
        path = row.get(f"{measure.name}_path") or [None] * len(alphas)
        return [
            number(path[0]) / 2 + number(path[-1]) / 2,
            number(path[middle]),
            number(row.get(f"{measure.name}_barrier")),
        ]

    lines = []
    for kind, rows in kinds.items():
        columns = [zip(*(values(row, measure) for row in rows), strict=True) for measure in measured]
        lines.append([kind, *(format_spread(column) for each in columns for column in each)])
    return Table(caption, ["", *heads], lines)


def by_kind(rows: Sequence[dict[str, Any]], split: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of a split by their kind, in the order in which kinds come."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["split"] == split:
            kinds.setdefault(row["kind"], []).append(row)
    return kinds


def _ends(row: dict[str, Any], measure: Measure) -> list[float | None]:
    path = row[f"{measure.name}_path"]
    return [path[0], path[-1]]


def _figure(
    lines: list[Curve],
    measure: Measure,
    split: str,
    what: str,
    spread: Any = "band",
    png: bool | None = None,
    **more: Any,
) -> Curves:
    return Curves(
        title=f"{measure.title} along the path", alt=f"Line chart of {split} {measure.label} along the path, for {what}.",
        curves=lines, xaxis=ALPHA, yaxis=f"{split} {measure.label}", spread=spread,
        png=measure.on_png if png is None else png, **{"compared": True, **more},
    )  # fmt: skip

"""Figures of the paths between pairs of models, which `tna barrier` and `tna rebasin` share."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import mean_std_columns
from tna_jax.programs.reports.wording import ALPHA

MANY = 40
"""Paths above this number are drawn as their mean and spread alone."""


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


def kind_paths(alphas: list[float], kinds: dict[str, list[dict[str, Any]]], colors: dict[str, str], measure: Measure,
               split: str) -> Curves:  # fmt: skip
    """Describes the mean path of the pairs of each kind; those with REPAIR are dashed."""
    x = [round(alpha, 6) for alpha in alphas]
    lines = [Curve.of(kind, x, mean_std_columns([row[f"{measure.name}_path"] for row in rows]), color=colors.get(kind, ""),
                   dash="dash" if "REPAIR" in kind else "solid") for kind, rows in kinds.items()]  # fmt: skip
    return _figure(
        lines, measure, split, f"kinds of matching: {', '.join(kinds)}", "band" if len(kinds) < 4 else "numbers"
    )


def _figure(lines: list[Curve], measure: Measure, split: str, what: str, spread: Any = "band") -> Curves:
    return Curves(
        title=f"{measure.title} along the path", alt=f"Line chart of {split} {measure.label} along the path, for {what}.",
        curves=lines, xaxis=ALPHA, yaxis=f"{split} {measure.label}", spread=spread, png=measure.on_png,
        compared=True,
    )  # fmt: skip

"""The figures of `tna fuse`: every fusion as a dot, the barrier of each pair, and averages of more and more models."""

from typing import Any

from tna_jax.programs.reports.by_count import by_count
from tna_jax.programs.reports.divergence import is_finite
from tna_jax.programs.reports.figures import Curves, Dot, Dots, Matrix
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import REPAIRED, Kinds, chance
from tna_jax.programs.reports.statistics import finite_mean_std, format_mean_std, number, standard_error

COLORS = {
    "uniform soup": "c1",
    "greedy soup": "c1",
    "logit ensemble": "c5",
    "best single": "muted",
    "mean of members": "muted",
}
MERGE_COLOR = "c2"
MEMBERS = "mean of members"
Fusions = dict[str, dict[str, dict[str, Any]]]
"""Rows by fusion and split."""


def dots(fusions: Fusions, measure: Measure, split: str) -> Dots:
    """Every fusion by one measure; accuracies with what chance makes of them."""
    name, rows = measure.name, {fusion: both[split] for fusion, both in fusions.items()}
    error = None
    if name == "accuracy":
        error = standard_error(number(rows[MEMBERS][name]), rows[MEMBERS]["examples"])
    texts = ", ".join(f"{fusion} {format_mean_std(mean_and_spread(row, name))}" for fusion, row in rows.items())
    shown = []
    for fusion, row in rows.items():
        singles = list(map(number, row.get(f"member_{name}", ())))
        spread = (
            row.get(f"{name}_std")
            if singles or error is None
            else 2 * standard_error(number(row[name]), row["examples"])
        )
        shown.append(
            Dot(fusion, number(mean_and_spread(row, name)[0]), spread, singles, COLORS.get(fusion, MERGE_COLOR))
        )
    return Dots(
        title=f"{split.capitalize()} {measure.label} of each fusion", alt=f"Dot chart of the {split} {measure.label}: {texts}.", dots=shown,
        what=f"{split} {measure.label}", singles="the models" if any(dot.singles for dot in shown) else "",
        bars=f"± 2 standard errors of {rows[MEMBERS]['examples']:,} examples" if error is not None else "",
        least=8 * error if error is not None else 0.2 * abs(number(rows[MEMBERS][name])),
    )  # fmt: skip


def matrix(
    rows: list[dict[str, Any]], measure: Measure, kinds: Kinds, result: dict[str, Any], split: str, repaired: str
) -> Matrix:
    """The barrier of each pair by one measure, in the same colors with REPAIR and without."""
    name, count = f"{measure.name}_barrier", len(result["models"])
    values = {(row["pair"][0], row["pair"][1]): number(row[name]) for row in rows}
    return Matrix(
        title=f"{measure.title_of(' barrier')} of each pair{repaired}",
        alt=f"Matrix of the {split} {measure.label_of(' barriers')} between {count} models{repaired}.",
        names=[str(i) for i in range(count)], values=values, what=measure.label_of(" barrier"), least=_darkest(kinds, measure),
    )  # fmt: skip


def _darkest(kinds: Kinds, measure: Measure) -> float:
    """The largest barrier of all kinds; at least four standard errors, or a tenth of the loss at the ends."""
    rows = [row for each in kinds.values() for row in each]
    largest = [value for row in rows if (value := number(row[f"{measure.name}_barrier"])) == value]
    if f"{measure.name}_path" not in rows[0]:
        return max([0.01, *largest])
    ends = finite_mean_std(row[f"{measure.name}_path"][i] for row in rows for i in (0, -1)).mean
    error = chance(rows, measure)
    return max([1e-6, 4 * error if error else 0.1 * abs(ends) if ends == ends else 0.01, *largest])


def colors(kinds: Kinds) -> dict[str, str]:
    return {kind: "c6" if REPAIRED in kind else "c1" for kind in kinds}


def with_repair(kind: str) -> str:
    return ", with REPAIR" if REPAIRED in kind else ""


def mean_and_spread(row: dict[str, Any], measure: str) -> list[float | None]:
    """Mean and spread of a fusion; none of one whose loss is not finite, for which no example counts as correct."""
    return [number(row[measure]), row.get(f"{measure}_std")] if is_finite(row) else [None, None]


def averages(result: dict[str, Any], measure: Measure, split: str) -> list[Curves]:
    """Returns the figure of averages by the number of models; none of files of before, and where there are only one and all."""
    rows = [row for row in result.get("by_count", []) if row["split"] == split]
    name = "averages" + (", after REPAIR" if result["options"]["repair"] else "")
    return [by_count({name: rows}, measure, split, {name: "c1"})] if len(rows) > 2 else []

"""What `tna rebasin` shows: paths and barriers before and after matching, and what the search took."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Correlations, Dot, Dots
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import kind_paths
from tna_jax.programs.reports.statistics import finite_mean_std, format_spread, number
from tna_jax.programs.reports.wording import pairs_that_diverged

COLORS = {"unmatched": "muted", "weight matching": "c1", "weight matching + REPAIR": "c6", "activation matching": "c2",
          "activation matching + REPAIR": "c5"}  # fmt: skip
SEARCH = {"sweeps": "sweeps", "linear assignments": "assignments", "of which moved a unit": "moving", "units moved": "moved",
          "seconds": "seconds"}  # fmt: skip


def _columns(measured: tuple[Measure, ...]) -> dict[str, str]:
    """The columns of the table: ends and midpoint of the first measure, the barriers of all."""
    first = measured[0]
    barriers = {measure.label_of(" barrier"): f"{measure.name}_barrier" for measure in measured}
    return {
        first.label_of(", ends"): f"{first.name}_ends",
        first.label_of(", midpoint"): f"{first.name}_midpoint",
        **barriers,
    }


def _groups(rows: list[dict[str, Any]]) -> list[Table]:
    """How many units of each group moved, and how alike those at the same place are."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["method"], row["group"]), []).append(row)

    def spread(pairs: list[dict[str, Any]], name: str) -> str:
        return format_spread([number(row[name]) for row in pairs], 3)

    cells = [[method, group, str(pairs[0]["units"]), format_spread([row["moved"] for row in pairs], 1),
              spread(pairs, "similarity_before"), spread(pairs, "similarity_after")]
             for (method, group), pairs in grouped.items()]  # fmt: skip
    caption = "hidden units, and the mean correlation of units at the same place, before and after"
    return [Table(caption, ["", "group", "units", "moved", "before", "after"], cells, keys=2)] if cells else []


def _pictures(correlations: dict[str, Any] | None) -> list[Correlations]:
    """The correlations of the units of a group, before and after matching."""
    if correlations is None:
        return []
    (first, second), group = correlations["pair"], correlations["group"]
    shown = len(correlations["before"])
    which = f"{shown} of {correlations['units']} units" if shown < correlations["units"] else "Units"
    words = {"before": f"before {correlations['method']} matching", "after": f"after {correlations['method']} matching"}
    return [
        Correlations(
            title=f"{which} of {group}, {when} {correlations['method']} matching",
            alt=f"Matrix of the correlations between the units of {group} of models {first} and {second}, {words[when]}; mean on the diagonal "
            f"{np.mean(np.diagonal(correlations[when])):.3f}.",
            values=correlations[when], axes=(f"unit of model {first}", f"unit of model {second}"),
        )
        for when in ("before", "after")
    ]  # fmt: skip


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the kinds of matching."""
    rows = [row for row in result["rows"] if row["split"] == split]
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["kind"], []).append(row)
    measured = measures.of_result(result)
    first, columns = measured[0], _columns(measured)
    what = first.label_of(" barrier")
    barriers = {kind: [number(row[f"{first.name}_barrier"]) for row in pairs] for kind, pairs in kinds.items()}
    stats = {kind: finite_mean_std(values) for kind, values in barriers.items()}
    best = min(stats, key=lambda kind: stats[kind].mean)
    numbers = [Number(f"{what}, {kind}", format_spread(values), plural(len(values), "pair"),
                      kind not in ("unmatched", best)) for kind, values in barriers.items()]  # fmt: skip
    means = [[kind, *(format_spread([np.mean([number(v) for v in np.ravel(row[name])]) for row in pairs]) for name in columns.values())]
             for kind, pairs in kinds.items()]  # fmt: skip
    search = [[kind, *(format_spread([row[name] for row in pairs], 2 if name == "seconds" else 1) for name in SEARCH.values())]
              for kind, pairs in kinds.items() if "sweeps" in pairs[0] and "REPAIR" not in kind]  # fmt: skip
    figures = [kind_paths(result["alphas"], kinds, COLORS, measure, split) for measure in measured]
    dots = Dots(
        title=first.title_of(" barriers"), alt=f"Dot chart of the {split} {first.label_of(' barriers')}: " + ", ".join(
            f"{kind} {format_spread(values)}" for kind, values in barriers.items()) + ".",
        dots=[Dot(kind, *stats[kind], values, COLORS.get(kind, "c1")) for kind, values in barriers.items()],
        what=f"{split} {what}", singles="the pairs",
    )  # fmt: skip
    tables = [Table(f"{split} set, mean ± standard deviation over pairs", ["", *columns], means)]
    tables += [Table("the search", ["", *SEARCH], search)] if search else []
    tables += _groups(result.get("groups") or [])
    pictures = _pictures(result.get("correlations"))
    side_by_side = (
        [*figures, *pictures, dots] if sum(figure.png for figure in figures) % 2 == 0 else [*figures, dots, *pictures]
    )
    heading = f"{checkpoint_status.title(result)}, {plural(len(barriers['unmatched']), 'pair')}"
    lead = "Hidden units of the second model of a pair, permuted to match the first's."
    return Description("Matching after training", heading, lead, numbers, [*tables, *side_by_side],
                       notes=pairs_that_diverged(rows))  # fmt: skip

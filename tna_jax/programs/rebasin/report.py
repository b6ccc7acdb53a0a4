"""What `tna rebasin` shows: paths and barriers before and after matching, and what the search took."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Correlations, Dot, Dots
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import REPAIRED, UNMATCHED, Kinds, by_kind, chance, kind_paths, kind_table
from tna_jax.programs.reports.statistics import finite_mean_std, format_spread, number
from tna_jax.programs.reports.wording import pairs_that_diverged

COLORS = {UNMATCHED: "muted", "weight matching": "c1", "weight matching + REPAIR": "c6", "activation matching": "c2",
          "activation matching + REPAIR": "c5", "weight matching to the mean": "c3", "weight matching to the mean + REPAIR": "c3",
          "rotation matching": "c4", "rotation matching + REPAIR": "c4"}  # fmt: skip
SEARCH = {"sweeps": "sweeps", "assignments": "assignments", "that moved": "moving", "units moved": "moved",
          "seconds": "seconds"}  # fmt: skip
"""Columns of the table of the search: passes, linear assignments, those of them that moved a unit."""


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the kinds of matching."""
    rows = [row for row in result["rows"] if row["split"] == split]
    kinds, measured, alphas = by_kind(rows, split), measures.of_result(result), result["alphas"]
    first = measured[0]
    barriers = {kind: [number(row[f"{first.name}_barrier"]) for row in pairs] for kind, pairs in kinds.items()}
    best = min(barriers, key=lambda kind: finite_mean_std(barriers[kind]).mean)
    numbers = [Number(f"{first.label_of(' barrier')}, {kind}", format_spread(values), plural(len(values), "pair"),
                      kind not in (UNMATCHED, best)) for kind, values in barriers.items()]  # fmt: skip
    paths = kind_table(f"{split} set, mean ± standard deviation over pairs", alphas, kinds, measured)
    tables = [paths, *_search(kinds), *_groups(result.get("groups") or [])]
    figures = [
        *(kind_paths(alphas, kinds, COLORS, measure, split) for measure in measured),
        *(_barriers(kinds, measure, split) for measure in measured),
        *_pictures(result.get("correlations")),
    ]
    heading = f"{checkpoint_status.title(result)}, {plural(len(kinds[UNMATCHED]), 'pair')}"
    return Description("Matching after training", heading, _lead(result), numbers, [*tables, *figures],
                       remarks=_remarks(result), notes=pairs_that_diverged(rows))  # fmt: skip


def _lead(result: dict[str, Any]) -> str:
    to = result.get("options", {}).get("to")
    if to == "mean":
        return "Hidden units of all models, permuted at once to match the models' mean, compared in pairs."
    both = " Also all models, permuted at once to match their mean." if isinstance(to, list) else ""
    return f"Hidden units of the second model of a pair, permuted to match the first's.{both}"


def _remarks(result: dict[str, Any]) -> list[str]:
    joint = result.get("joint")
    lines = [] if joint is None else [
        f"all {len(result['models'])} models were matched to their mean at once: {plural(joint['rounds'], 'round')}, "
        f"{joint['seconds']:.2f} s; counts are of the second model of a pair"
    ]  # fmt: skip
    turned = [row for row in result["rows"] if "rounds" in row]
    if turned:
        lines.append(
            f"rotations took {format_spread([row['rounds'] for row in turned], 1)} rounds and "
            f"{format_spread([row['seconds'] for row in turned], 2)} s a pair; both models are in the form without scales in their "
            "norms, the same functions as before, and no mask is true of what was turned"
        )
    if result.get("options", {}).get("reset_ends"):
        lines.append("running statistics of the models themselves were estimated again, as of those between them")
    return lines


def _search(kinds: Kinds) -> list[Table]:
    """What the search of each kind took."""
    cells = [[kind, *(format_spread([row[name] for row in pairs], 2 if name == "seconds" else 1) for name in SEARCH.values())]
              for kind, pairs in kinds.items() if "sweeps" in pairs[0] and REPAIRED not in kind]  # fmt: skip
    return (
        [Table("the search: passes, linear assignments, those that moved a unit", ["", *SEARCH], cells)]
        if cells
        else []
    )


def _groups(rows: list[dict[str, Any]]) -> list[Table]:
    """How many units of each group moved, and how alike those at the same place are."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row.get("kind", row["method"]).replace(" matching", ""), row["group"]), []).append(row)

    def spread(pairs: list[dict[str, Any]], name: str) -> str:
        return format_spread([number(row[name]) for row in pairs], 3)

    cells = [[method, group, str(pairs[0]["units"]), _moved(pairs),
              spread(pairs, "similarity_before"), spread(pairs, "similarity_after")]
             for (method, group), pairs in grouped.items()]  # fmt: skip
    caption = "hidden units, and the mean correlation of units at the same place, before and after"
    return [Table(caption, ["", "group", "units", "moved", "before", "after"], cells, keys=2)] if cells else []


def _moved(pairs: list[dict[str, Any]]) -> str:
    """Units that moved; those of a residual stream were turned."""
    return "turned" if pairs[0]["moved"] is None else format_spread([row["moved"] for row in pairs], 1)


def _barriers(kinds: Kinds, measure: Measure, split: str) -> Dots:
    """The barrier of each kind, a ring for each pair."""
    barriers = {kind: [number(row.get(f"{measure.name}_barrier")) for row in pairs] for kind, pairs in kinds.items()}
    error = chance(kinds[UNMATCHED], measure)
    return Dots(
        title=measure.title_of(" barriers"), alt=f"Dot chart of the {split} {measure.label_of(' barriers')}: " + ", ".join(
            f"{kind} {format_spread(values)}" for kind, values in barriers.items()) + ".",
        dots=[Dot(kind, *finite_mean_std(values), values, COLORS.get(kind, "c1")) for kind, values in barriers.items()],
        what=f"{split} {measure.label_of(' barrier')}", singles="the pairs",
        least=8 * (error or 0.0), chance=None if error is None else (0.0, 2 * error),
    )  # fmt: skip


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
            values=correlations[when], axes=(f"unit of model {first}", f"unit of model {second}"), compared=when == "before",
        )
        for when in ("before", "after")
    ]  # fmt: skip

"""What `tna barrier` shows: the barriers between the models in pairs, and every path."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Matrix
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import pair_paths
from tna_jax.programs.reports.statistics import format_number, format_spread, number
from tna_jax.programs.reports.wording import pairs_that_diverged

SHOWN = 12
"""Of more pairs the table has the mean alone."""


def _barriers(measured: tuple[Measure, ...]) -> dict[str, str]:
    """The columns of barriers: linear ones of all measures, and those of the first relative and at the midpoint."""
    first, *others = measured
    return {
        first.label_of(" barrier"): f"{first.name}_barrier_linear",
        "relative barrier": f"{first.name}_barrier_relative",
        **{measure.label_of(" barrier"): f"{measure.name}_barrier_linear" for measure in others},
        first.label_of(" barrier at the midpoint"): f"{first.name}_barrier_midpoint",
    }


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the straight line between every two models."""
    rows = [row for row in result["rows"] if row["split"] == split]
    count, middle = len(result["models"]), result["alphas"].index(0.5)
    measured = measures.of_result(result)
    first, barriers = measured[0], _barriers(measured)
    ends, midpoint = first.label_of(", ends"), first.label_of(", midpoint")
    columns: dict[str, list[float]] = {ends: [], midpoint: []}
    for row in rows:
        path = [number(value) for value in row[f"{first.name}_path"]]
        columns[ends].append((path[0] + path[-1]) / 2)
        columns[midpoint].append(path[middle])
    columns |= {name: [number(row[column]) for row in rows] for name, column in barriers.items()}
    numbers = [Number(name, format_spread(columns[name]), plural(len(rows), "pair"))
               for name in (measure.label_of(" barrier") for measure in measured)]  # fmt: skip
    lines = [["-".join(map(str, row["pair"])), *(format_number(values[i]) for values in columns.values())]
             for i, row in enumerate(rows) if len(rows) <= SHOWN]  # fmt: skip
    table = Table(f"{split} set, mean ± standard deviation over pairs", ["pair", *columns],
                  [*lines, ["all pairs", *map(format_spread, columns.values())]])  # fmt: skip
    paths = [pair_paths(result["alphas"], rows, measure, split) for measure in measured]
    what = first.label_of(" barrier")
    values = {(row["pair"][0], row["pair"][1]): number(row[barriers[what]]) for row in rows}
    matrix = Matrix(title=f"{first.title_of(' barrier')} of each pair", alt=f"Matrix of the {split} {first.label_of(' barriers')} between {count} models.",
                    names=[str(i) for i in range(count)], values=values, what=what)  # fmt: skip
    lead = f"The straight line between the weights of every two of {count} models."
    return Description("Barriers between pairs", checkpoint_status.title(result), lead, numbers,
                       [table, *paths, matrix], notes=pairs_that_diverged(rows))  # fmt: skip

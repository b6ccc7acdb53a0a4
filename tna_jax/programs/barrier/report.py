"""What `tna barrier` shows: the barriers between the models in pairs, and every path."""

import dataclasses
from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Curve, Curves, Dot, Dots, Figure, Matrix
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import chance, kind_paths, kind_table, pair_paths
from tna_jax.programs.reports.statistics import (
    finite_mean_std,
    format_number,
    format_spread,
    number,
    standard_error,
)
from tna_jax.programs.reports.wording import pairs_that_diverged

STRAIGHT, CURVED = "straight", "curved"
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
    where = [
        *_curves(result, rows, measured, split),
        *_layers(result.get("layers", []), measured, split, rows),
        *_epochs(result.get("epochs", []), measured, split),
    ]
    lead = f"The straight line between the weights of every two of {count} models."
    return Description("Barriers between pairs", checkpoint_status.title(result), lead, numbers,
                       [table, *paths, matrix, *where], remarks=_deflections(result, split), notes=pairs_that_diverged(rows))  # fmt: skip


def _deflections(result: dict[str, Any], split: str) -> list[str]:
    """How far curved paths leave the lines, in words."""
    found = [number(row["deflection"]) for row in result.get("curves", []) if row["split"] == split]
    if not np.isfinite(found).any():
        return []
    return [f"The bend of a curve is {format_spread(found)} of the distance between its ends away from the middle of their line."]  # fmt: skip


def _curves(
    result: dict[str, Any], straight: list[dict[str, Any]], measured: tuple[Measure, ...], split: str
) -> list[Table | Figure]:
    """Straight and curved paths side by side."""
    curved = [row for row in result.get("curves", []) if row["split"] == split]
    if not curved:
        return []
    lines = [
        {**row, **{f"{measure.name}_barrier": row[f"{measure.name}_barrier_linear"] for measure in measured}}
        for row in straight
    ]
    kinds = {STRAIGHT: lines, CURVED: curved}
    caption = f"{split} set: straight lines, and curves whose middle was trained for {plural(result['curve_epochs'], 'epoch')}; mean ± standard deviation over pairs"
    figures = [
        dataclasses.replace(kind_paths(result["alphas"], kinds, {STRAIGHT: "c1", CURVED: "c2"}, measure, split),
                            title=f"{measure.title} along straight and curved paths")
        for measure in measured
    ]  # fmt: skip
    return [kind_table(caption, result["alphas"], kinds, measured), *figures]


def _layers(
    rows: list[dict[str, Any]], measured: tuple[Measure, ...], split: str, paths: list[dict[str, Any]]
) -> list[Figure]:
    """The barrier of each layer alone, a ring for each pair."""
    rows = [row for row in rows if row["split"] == split]
    figures: list[Figure] = []
    for measure in measured if rows else ():
        layers: dict[str, list[float]] = {}
        for row in rows:
            layers.setdefault(row["layer"], []).append(number(row[f"{measure.name}_barrier"]))
        error = chance(paths, measure)
        figures.append(Dots(
            title=f"{measure.title_of(' barrier')} of each layer alone",
            alt=f"Dot chart of the {split} {measure.label_of(' barrier')} of each layer alone: " + ", ".join(
                f"{layer} {format_spread(values)}" for layer, values in layers.items()) + ".",
            dots=[Dot(layer, *finite_mean_std(values), values if len(values) > 1 else []) for layer, values in layers.items()],
            what=f"{split} {measure.label_of(' barrier')}", singles="the pairs", png=measure.on_png or len(measured) == 1,
            least=8 * (error or 0.0), chance=None if error is None else (-2 * error, 2 * error),
        ))  # fmt: skip
    return figures


def _epochs(rows: list[dict[str, Any]], measured: tuple[Measure, ...], split: str) -> list[Figure]:
    """The barriers of the kept checkpoints, mean and spread over the pairs."""
    rows = [row for row in rows if row["split"] == split]
    epochs = sorted({row["epoch"] for row in rows})
    figures: list[Figure] = []
    for measure in measured if rows else ():
        name = f"{measure.name}_barrier"
        stats = [finite_mean_std(number(row[name]) for row in rows if row["epoch"] == epoch) for epoch in epochs]
        band = None
        if measure == measures.ACCURACY:
            errors = [
                standard_error(finite_mean_std(end for row in rows if row["epoch"] == epoch for end in row[f"{measure.name}_ends"]).mean, rows[0]["examples"])
                for epoch in epochs
            ]  # fmt: skip
            band = Curve(f"chance: 2 standard errors of {rows[0]['examples']:,} examples", [*map(float, epochs)], [0.0] * len(epochs),
                         [2 * error for error in errors])  # fmt: skip
        figures.append(Curves(
            title=f"{measure.title_of(' barrier')} after each epoch",
            alt=f"Line chart of the {split} {measure.label_of(' barrier')} by epoch, mean over {len({tuple(row['pair']) for row in rows})} pairs.",
            curves=[Curve.of(f"{measure.label_of(' barrier')}", epochs, stats)], xaxis="epoch", yaxis=f"{split} {measure.label_of(' barrier')}",
            compared=True, chance=band, least=0.0 if band is None else 8 * max(errors), png=measure.on_png or len(measured) == 1,
        ))  # fmt: skip
    return figures

"""A report's parts on the models of a run in pairs: `barrier.json`, and `rebasin.json`, before and after matching."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.rebasin.report import kinds
from tna_jax.programs.reports.blocks import Figure, Number, Overlay, Part, Table, mean_std, number, spread
from tna_jax.programs.reports.charts import Curve, curves, matrix
from tna_jax.programs.reports.lmc import ALPHA

MANY = 40
"""Paths above this number are drawn as their mean and spread alone."""


def barrier(result: dict[str, Any], split: str) -> Part:
    """What `tna barrier` found."""
    rows = [row for row in result["rows"] if row["split"] == split]
    count = len(result["models"])
    values = {(row["pair"][0], row["pair"][1]): number(row["accuracy_barrier_linear"]) for row in rows}
    columns = {"accuracy barrier": "accuracy_barrier_linear", "loss barrier": "loss_barrier_linear",
               "relative barrier": "accuracy_barrier_relative", "accuracy barrier at the midpoint": "accuracy_barrier_midpoint"}  # fmt: skip
    found = {name: [number(row[column]) for row in rows] for name, column in columns.items()}
    numbers = [
        Number(name, spread(found[name]), plural(len(rows), "pair")) for name in ("accuracy barrier", "loss barrier")
    ]
    blocks: list[Table | Figure] = []
    overlays = []
    for measure in ("accuracy", "loss"):
        figure, mean, std = _paths(result["alphas"], {"every pair": rows}, measure, split, "pairs of models")
        blocks.append(figure)
        chart = f"{split} {measure} along the path, mean over pairs"
        overlays.append(Overlay(chart, ALPHA, f"{split} {measure}", [round(a, 6) for a in result["alphas"]], mean, std))
    blocks.append(
        matrix("Accuracy barrier of each pair", f"Matrix of the {split} accuracy barriers between {count} models.",
               [str(i) for i in range(count)], values, "accuracy barrier")
    )  # fmt: skip
    table = Table(f"{split} set, mean ± standard deviation over pairs", ["", *columns],
                  [["all pairs", *(spread(values) for values in found.values())]])  # fmt: skip
    lead = f"The straight line between the weights of every two of {count} models."
    return Part("Barriers between pairs", lead, numbers, [table, *blocks], overlays, _diverged(rows))


def rebasin(result: dict[str, Any], split: str) -> Part:
    """What `tna rebasin` found."""
    by_kind = kinds(result, split)
    columns = {"accuracy, ends": "accuracy_ends", "accuracy, midpoint": "accuracy_midpoint",
               "accuracy barrier": "accuracy_barrier", "loss barrier": "loss_barrier"}  # fmt: skip
    cells = [
        [
            kind,
            *(
                spread([float(np.mean([number(v) for v in np.ravel(row[column])])) for row in rows])
                for column in columns.values()
            ),
        ]
        for kind, rows in by_kind.items()
    ]
    barriers = {kind: [number(row["accuracy_barrier"]) for row in rows] for kind, rows in by_kind.items()}
    best = min(barriers, key=lambda kind: mean_std(barriers[kind])[0])
    numbers = [
        Number(
            f"accuracy barrier, {kind}",
            spread(values),
            plural(len(values), "pair"),
            kind not in ("unmatched", best),
        )
        for kind, values in barriers.items()
    ]
    figures = [_paths(result["alphas"], by_kind, measure, split, "kinds of matching")[0] for measure in ("accuracy", "loss")]  # fmt: skip
    rows = [row for row in result["rows"] if row["split"] == split]
    table = Table(f"{split} set, mean ± standard deviation over pairs", ["", *columns], cells)
    return Part("Matching after training", "Hidden units of the second model of a pair, permuted to match the first's.",
                numbers, [table, *figures], [], _diverged(rows))  # fmt: skip


def _paths(alphas, by_kind: dict[str, list[dict[str, Any]]], measure: str, split: str, what: str):
    """The figure of the mean path of each kind, of one kind also every pair; and the mean and spread of the last one."""
    x = [round(alpha, 6) for alpha in alphas]
    lines: list[Curve] = []
    mean: list[float | None] = []
    std: list[float | None] | None = None
    for kind, rows in by_kind.items():
        paths = np.array([[number(v) for v in row[f"{measure}_path"]] for row in rows])
        if len(by_kind) == 1 and 1 < len(rows) <= MANY:
            lines += [
                Curve("-".join(map(str, row["pair"])), x, row[f"{measure}_path"], group=kind, thin=True, colour="c1")
                for row in rows
            ]
        found = [mean_std(paths[:, i].tolist()) for i in range(len(x))]
        mean = [m if np.isfinite(m) else None for m, _ in found]
        std = [s for _, s in found] if len(rows) > 1 else None
        one = len(by_kind) == 1
        lines.append(Curve(f"mean of {len(rows)}" if one else kind, x, mean, std, colour="c2" if one else "",
                           dash="dash" if "REPAIR" in kind else "solid", band=len(by_kind) < 4))  # fmt: skip
    alt = f"Line chart of {split} {measure} along the path, for {what}: {', '.join(by_kind)}."
    figure = curves(f"{measure.capitalize()} along the path", alt, lines, ALPHA, f"{split} {measure}")
    return figure, mean, std


def _diverged(rows: list[dict[str, Any]]) -> list[str]:
    bad = sorted({"-".join(map(str, row["pair"])) for row in rows if None in row["loss_path"]})
    return [f"Pairs with a model that diverged, left out of the means: {', '.join(bad)}."] if bad else []

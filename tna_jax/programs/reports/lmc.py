"""A report's part on `lmc.json`: barriers by mask ratio, and accuracy and loss along the path."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.lmc.report import NAMES, TITLES, finite, present, select
from tna_jax.programs.reports.blocks import Figure, Number, Overlay, Part, Table, mean_std, number, spread
from tna_jax.programs.reports.charts import Curve, curves

RATIO = "mask ratio (share of anchored weights)"
ALPHA = "α, from one model (0) to the other (1)"
COLUMNS = {
    "accuracy_ends": "accuracy, ends", "accuracy_midpoint": "accuracy, midpoint", "accuracy_barrier": "accuracy barrier",
    "accuracy_barrier_relative": "relative barrier", "loss_barrier": "loss barrier",
}  # fmt: skip


def part(result: dict[str, Any], split: str) -> Part:
    """What `tna lmc` found, from the contents of its results file."""
    inits, methods, ratios = (present(result, column) for column in ("init", "method", "ratio"))
    numbers: list[Number] = []
    blocks: list[Table | Figure] = []
    overlays: list[Overlay] = []
    for init in inits:
        numbers += _headline(result, split, init, ratios)
        blocks += _against_ratio(result, split, init, methods, ratios)
        blocks += _along_path(result, split, init, methods, ratios)
        barriers = [mean_std(column(result, "accuracy_barrier", init, "tna", ratio, split)) for ratio in ratios]
        overlays.append(
            Overlay(f"{split} accuracy barrier by mask ratio, TNA, {TITLES[init]}", RATIO, "accuracy barrier", ratios,
                    [_null(mean) for mean, _ in barriers], [std for _, std in barriers])
        )  # fmt: skip
    table = _table(result, split, inits, methods, ratios)
    notes = [
        f"Left out of the means: {NAMES[m['method']]} ratio {m['ratio']:g} seed {m['seed']} model {m['order']}, which "
        f"diverged in epoch {m['epoch']}."
        for m in result["diverged"]
    ]
    lead = (
        f"Pairs of networks that saw the data in different orders, and the straight line between their weights. The barrier "
        f"is how far the {split} accuracy (loss) on the line falls below (rises above) the line between the two ends. "
        f"Means ± standard deviation over {plural(result['config']['seeds'], 'pair')}."
    )
    return Part("Linear mode connectivity", lead, numbers, [table, *blocks], overlays, notes)


def column(result: dict[str, Any], name: str, init: str, method: str, ratio: float, split: str) -> list[float]:
    """A column of the finite rows of a cell; of two ends the mean."""
    rows = select(result, init=init, method=method, ratio=ratio, split=split)
    return [float(np.mean(row[name])) for row in rows if finite(row)]


def _null(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _headline(result, split: str, init: str, ratios: list[float]) -> list[Number]:
    found = {ratio: column(result, "accuracy_barrier", init, "tna", ratio, split) for ratio in ratios}
    found = {ratio: values for ratio, values in found.items() if values}
    label = f"accuracy barrier, {init} initialisation"
    numbers = [Number(f"{label}, no anchors", spread(found[0]), f"n = {len(found[0])}")] if 0 in found else []
    anchored = {ratio: values for ratio, values in found.items() if ratio > 0}
    if anchored:
        best = min(anchored, key=lambda ratio: float(np.mean(anchored[ratio])))
        what = "lowest with anchors" if len(anchored) > 1 else "with anchors"
        note = f"at mask ratio {best:g}, n = {len(anchored[best])}"
        numbers.append(Number(f"{label}, {what}", spread(anchored[best]), note))
    return numbers


def _table(result, split: str, inits: list[str], methods: list[str], ratios: list[float]) -> Table:
    rows = []
    for init in inits:
        for method in methods:
            for ratio in ratios:
                values = {name: column(result, name, init, method, ratio, split) for name in COLUMNS}
                if (ratio == 0 and method != methods[0]) or not select(result, init=init, method=method, ratio=ratio):
                    continue
                name = NAMES[method] if ratio else "no anchors"
                cells = [spread(v) for v in values.values()]
                rows.append([f"{init}, {name}", f"{ratio:g}", str(len(values["accuracy_ends"])), *cells])
    caption = f"{split} set, mean ± standard deviation over pairs"
    return Table(caption, ["initialisation, method", "ratio", "n", *COLUMNS.values()], rows)


def _against_ratio(result, split: str, init: str, methods: list[str], ratios: list[float]) -> list[Figure]:
    def line(name: str, values: str, method: str, **style: Any) -> Curve:
        found = [mean_std(column(result, values, init, method, ratio, split)) for ratio in ratios]
        return Curve(name, ratios, [_null(mean) for mean, _ in found], [std for _, std in found], **style)

    accuracy, barrier = [], []
    for method, colour in zip(methods, ("c1", "c2"), strict=False):
        name = NAMES[method]
        accuracy.append(line(f"{name}, ends", "accuracy_ends", method, colour=colour, dash="dot"))
        accuracy.append(line(f"{name}, midpoint", "accuracy_midpoint", method, colour=colour))
        barrier.append(line(name, "accuracy_barrier", method, colour=colour))
    told = f"{TITLES[init]}; {', '.join(NAMES[m] for m in methods)}; ratios {', '.join(f'{r:g}' for r in ratios)}"
    return [
        curves(f"Accuracy against the mask ratio, {TITLES[init]}", f"Line chart of {split} accuracy at the ends and at "
               f"the midpoint of the path against the mask ratio: {told}.", accuracy, RATIO, f"{split} accuracy"),
        curves(f"Accuracy barrier against the mask ratio, {TITLES[init]}", f"Line chart of the {split} accuracy barrier "
               f"against the mask ratio: {told}.", barrier, RATIO, "accuracy barrier", yaxis_rangemode="tozero"),
    ]  # fmt: skip


def _along_path(result, split: str, init: str, methods: list[str], ratios: list[float]) -> list[Figure]:
    alphas = [round(alpha, 6) for alpha in result["alphas"]]
    figures = []
    for measure in ("accuracy", "loss"):
        lines = []
        for method in methods:
            for i, ratio in enumerate(ratios):
                rows = [r for r in select(result, init=init, method=method, ratio=ratio, split=split) if finite(r)]
                if not rows or (ratio == 0 and method != methods[0]):
                    continue
                paths = np.array([[number(v) for v in row[f"{measure}_path"]] for row in rows])
                std = paths.std(axis=0, ddof=1).tolist() if len(rows) > 1 else None
                first = method == methods[0]
                colour = "muted" if ratio == 0 else f"c{i % 7 + (ratios[0] != 0)}"
                name = f"{NAMES[method]} {ratio:g}" if ratio else "no anchors"
                lines.append(Curve(name, alphas, paths.mean(axis=0).tolist(), std, colour=colour,
                                   dash="solid" if first else "dash", shown=first))  # fmt: skip
        alt = f"Line chart of {split} {measure} along the path between two models, {TITLES[init]}, a line for each mask ratio."
        title = f"{measure.capitalize()} along the path, {TITLES[init]}"
        figures.append(curves(title, alt, lines, ALPHA, f"{split} {measure}"))
    return figures

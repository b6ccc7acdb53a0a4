"""What `tna lmc` shows, from the contents of `lmc.json` alone: barriers by mask ratio, accuracy and loss along the path."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.divergence import DIVERGED
from tna_jax.programs.reports.figures import Curve, Curves, Figure
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import (
    MeanStd,
    format_mean_std,
    format_spread,
    mean_std,
    mean_std_columns,
)
from tna_jax.programs.reports.wording import ALPHA, dataset_name, network_name

TITLES = {"same": "same initialization", "different": "different initialization, shared anchors"}
NAMES = {"tna": "TNA", "prune": "pruning"}
COLORS = {"tna": "c1", "prune": "c2"}
"""Names of colors in figures."""
Result = dict[str, Any]


def columns(measured: tuple[Measure, ...]) -> dict[str, str]:
    """Returns the columns of the table: the ends, midpoint and barriers of the first measure, the barriers of the others."""
    first, *others = measured
    return {
        f"{first.name}_ends": first.label_of(", ends"), f"{first.name}_midpoint": first.label_of(", midpoint"),
        f"{first.name}_barrier": first.label_of(" barrier"), f"{first.name}_barrier_relative": "relative barrier",
        **{f"{measure.name}_barrier": measure.label_of(" barrier") for measure in others},
    }  # fmt: skip


def select(result: Result, **wanted: Any) -> list[dict[str, Any]]:
    """Returns the rows whose columns have the values of `wanted`."""
    return [row for row in result["rows"] if all(row[key] == value for key, value in wanted.items())]


def present(result: Result, column: str) -> list[Any]:
    """Returns the values of a column, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in result["rows"]))


def finite(row: dict[str, Any]) -> bool:
    """Returns whether both models of the pair, and all between them, have a finite loss."""
    return None not in row["loss_path"]


def column(rows: list[dict[str, Any]], name: str) -> list[float]:
    """Returns a column of the finite rows (pairs); of two ends the mean."""
    return [float(np.mean(row[name])) for row in rows if finite(row)]


def pairs_mean_std(rows: list[dict[str, Any]], name: str) -> MeanStd:
    """Computes mean and sample standard deviation of a column over the pairs of which no model diverged."""
    return mean_std(column(rows, name))


def describe(result: Result, split: str = "test") -> Description:
    """Describes the barriers on the test or the training set."""
    first = measures.of_result(result)[0]
    barrier = (
        f"{split} accuracy (loss) on the line falls below (rises above)"
        if first == measures.ACCURACY
        else f"{split} {first.label} on the line {'falls below' if first.larger_is_better else 'rises above'}"
    )
    config, pairs = result["config"], plural(result["config"]["seeds"], "pair")
    inits, methods, ratios = (present(result, name) for name in ("init", "method", "ratio"))
    numbers: list[Number] = []
    blocks: list[Table | Figure] = [_table(result, split)]
    for init in inits:
        anchored = {ratio: select(result, init=init, method="tna", ratio=ratio, split=split) for ratio in ratios}
        numbers += _headline(
            first.label_of(" barrier"),
            init,
            {ratio: column(rows, f"{first.name}_barrier") for ratio, rows in anchored.items()},
        )
        blocks += [
            *_against_ratio(result, split, init, methods, ratios),
            *_along_path(result, split, init, methods, ratios),
        ]
    heading = f"{dataset_name(config)}, {network_name(result)}, {plural(config['epochs'], 'epoch')}, {pairs}"
    lead = (
        f"Pairs of networks that saw the data in different orders, and the straight line between their weights. The barrier "
        f"is how far the {barrier} the line between the two ends. "
        f"Means ± standard deviation over {pairs}."
    )
    return Description("Linear mode connectivity", heading, lead, numbers, blocks, notes=_diverged(result["diverged"]))


NAMED = 4
"""Of more models that diverged it is said how many, by method and ratio."""


def _diverged(models: list[dict[str, Any]]) -> list[str]:
    """Returns which models diverged, and when."""
    if len(models) <= NAMED:
        return [f"Left out of the means: {NAMES[model['method']]} ratio {model['ratio']:g} seed {model['seed']} model "
                f"{model['order']}, which diverged in epoch {model['epoch']}." for model in models]  # fmt: skip
    epochs: dict[tuple[str, float], list[int]] = {}
    for model in models:
        epochs.setdefault((model["method"], model["ratio"]), []).append(model["epoch"])
    return [
        f"Left out of the means: {plural(len(when), 'model')} {f'of {NAMES[method]} ratio {ratio:g}' if ratio else 'without anchors'}, which diverged in "
        + (f"epoch {min(when)}." if min(when) == max(when) else f"epochs {min(when)} to {max(when)}.")
        for (method, ratio), when in epochs.items()
    ]


def _headline(what: str, init: str, barriers: dict[float, list[float]]) -> list[Number]:
    label = f"{what}, {init} initialization"
    plain = barriers.get(0)
    anchored = {ratio: values for ratio, values in barriers.items() if ratio > 0 and values}
    numbers = []
    if plain is not None:
        numbers.append(Number(f"{label}, no anchors", format_spread(plain) if plain else DIVERGED, f"n = {len(plain)}"))
    if not anchored and any(ratio > 0 for ratio in barriers):
        numbers.append(Number(f"{label}, with anchors", DIVERGED, "n = 0"))
    if anchored:
        best = min(anchored, key=lambda ratio: float(np.mean(anchored[ratio])))
        what = "lowest with anchors" if len(anchored) > 1 else "with anchors"
        note = f"at mask ratio {best:g}, n = {len(anchored[best])}"
        numbers.append(Number(f"{label}, {what}", format_spread(anchored[best]), note))
    return numbers


def _table(result: Result, split: str) -> Table:
    rows, names = [], columns(measures.of_result(result))
    for init in present(result, "init"):
        for method in present(result, "method"):
            for ratio in present(result, "ratio"):
                pairs = select(result, init=init, method=method, ratio=ratio, split=split)
                if not pairs or (ratio == 0 and method != present(result, "method")[0]):
                    continue
                count = sum(map(finite, pairs))
                cells = (
                    [format_mean_std(pairs_mean_std(pairs, name)) for name in names]
                    if count
                    else [DIVERGED, *["–"] * (len(names) - 1)]
                )
                rows.append([init, NAMES[method] if ratio else "no anchors", f"{ratio:g}", str(count), *cells])
    heads = ["initialization", "method", "ratio", "n", *names.values()]
    return Table(f"{split} set, mean ± standard deviation over pairs", heads, rows, keys=3)


def _curve(name: str, cells: list[list[dict[str, Any]]], column: str, ratios: list[float], **style: Any) -> Curve:
    return Curve.of(name, ratios, [pairs_mean_std(rows, column) for rows in cells], **style)


def _against_ratio(result: Result, split: str, init: str, methods: list[str], ratios: list[float]) -> list[Curves]:
    first = measures.of_result(result)[0]
    key, label = first.name, first.label
    accuracy, barrier, gaps = [], [], []
    for method in methods:
        name, color = NAMES[method], COLORS[method]
        cells = [select(result, init=init, method=method, ratio=ratio, split=split) for ratio in ratios]
        accuracy.append(_curve(f"{name}, ends", cells, f"{key}_ends", ratios, color=color, dash="dot"))
        accuracy.append(_curve(f"{name}, midpoint", cells, f"{key}_midpoint", ratios, color=color))
        barrier.append(_curve(name, cells, f"{key}_barrier", ratios, color=color))
        between = (f"{name}, ends", f"{name}, midpoint")
        gaps.append((f"{name}, barrier", *(between if first.larger_is_better else between[::-1])))
    what = f"{TITLES[init]}; {', '.join(NAMES[m] for m in methods)}; ratios {', '.join(f'{r:g}' for r in ratios)}"
    where = f"against the mask ratio, {TITLES[init]}"
    xaxis = f"mask ratio (share of {'anchored or pruned' if 'prune' in methods else 'anchored'} weights)"
    return [
        Curves(title=f"{first.title} {where}", alt=f"Line chart of {split} {label} at the ends and at the midpoint of the path "
               f"against the mask ratio: {what}.", curves=accuracy, xaxis=xaxis, yaxis=f"{split} {label}", spread="bars",
               gaps=gaps),
        Curves(title=f"{first.title_of(' barrier')} {where}", alt=f"Line chart of the {split} {first.label_of(' barrier')} against the mask ratio: "
               f"{what}.", curves=barrier, xaxis=xaxis, yaxis=first.label_of(" barrier"), from_zero=True, compared=True,
               png=False),
    ]  # fmt: skip


def _along_path(result: Result, split: str, init: str, methods: list[str], ratios: list[float]) -> list[Curves]:
    alphas, figures = [round(alpha, 6) for alpha in result["alphas"]], []
    for measure in measures.of_result(result):
        curves = []
        for method in methods:
            for i, ratio in enumerate(ratios):
                rows = [r for r in select(result, init=init, method=method, ratio=ratio, split=split) if finite(r)]
                if not rows or (ratio == 0 and method != methods[0]):
                    continue
                first = method == methods[0]
                color = "muted" if ratio == 0 else f"c{i % 7 + (ratios[0] != 0)}"
                name = f"{NAMES[method]} {ratio:g}" if ratio else "no anchors"
                path = mean_std_columns([row[f"{measure.name}_path"] for row in rows])
                curves.append(Curve.of(name, alphas, path, color=color, dash="solid" if first else "dash", shown=first))
        alt = f"Line chart of {split} {measure.label} along the path between two models, {TITLES[init]}, a line for each mask ratio."
        title = f"{measure.title} along the path, {TITLES[init]}"
        figures.append(Curves(title=title, alt=alt, curves=curves, xaxis=ALPHA, yaxis=f"{split} {measure.label}", ordered=True,
                              png=measure.on_png))  # fmt: skip
    return figures

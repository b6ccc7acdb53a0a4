"""What `tna lmc` shows: a table on the screen and a figure, both from the contents of `lmc.json` alone."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.programs.cli.progress import plural, wide_console

TITLES = {"same": "same initialisation", "different": "different initialisation, shared anchors"}
NAMES = {"tna": "TNA", "prune": "pruning"}
COLOURS = {"tna": "#1b6ca8", "prune": "#c7522a"}


def select(result: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """The rows whose columns have the values of `wanted`."""
    return [row for row in result["rows"] if all(row[key] == value for key, value in wanted.items())]


def spread(rows: list[dict[str, Any]], column: str) -> tuple[float, float]:
    """Mean and sample standard deviation over rows (pairs); of two ends the mean first.

    Pairs whose path has a non-finite loss (a model diverged) are left out; NaN where none is left.
    """
    values = np.array([np.mean(row[column]) for row in rows if finite(row)])
    if not len(values):
        return float("nan"), float("nan")
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def finite(row: dict[str, Any]) -> bool:
    """Whether both models of the pair, and all between them, have a finite loss."""
    return None not in row["loss_path"]


def short(value: float) -> str:
    """Four decimals, or powers of ten for what is too large for that."""
    return f"{value:.4f}" if not abs(value) >= 1000 else f"{value:.1e}"


def named(result: dict[str, Any]) -> str:
    """The network in words; results from before they were kept say it by their options."""
    config = result["config"]
    return result.get("network", f"{config['model']} {config.get('depth')}x{config.get('width')}")


def present(result: dict[str, Any], column: str) -> list[Any]:
    """The values of a column, in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in result["rows"]))


def table(result: dict[str, Any], split: str = "test") -> None:
    """Prints a row for each initialisation, method and ratio: mean +- standard deviation over pairs."""
    config = result["config"]
    lines = Table(
        title=f"{config['dataset']}, {named(result)}, {plural(config['epochs'], 'epoch')}: {split} set, mean ± std over {plural(config['seeds'], 'pair')}",
        title_justify="left",
    )
    lines.add_column("initialisation")
    lines.add_column("method")
    for column in (
        "ratio",
        "accuracy, ends",
        "accuracy, midpoint",
        "accuracy barrier",
        "relative barrier",
        "loss barrier",
    ):
        lines.add_column(column, justify="right")
    for init in present(result, "init"):
        for method in present(result, "method"):
            for ratio in present(result, "ratio"):
                rows = select(result, init=init, method=method, ratio=ratio, split=split)
                if not rows or (ratio == 0 and method != present(result, "method")[0]):
                    continue
                columns = (
                    "accuracy_ends",
                    "accuracy_midpoint",
                    "accuracy_barrier",
                    "accuracy_barrier_relative",
                    "loss_barrier",
                )
                cells = [" ± ".join(map(short, spread(rows, column)[: len(rows)])) for column in columns]
                name = NAMES[method] if ratio else "no anchors"
                lines.add_row(init, name, f"{ratio:g}", *cells)
        lines.add_section()
    wide_console().print(lines)
    for model in result["diverged"]:
        name = f"{model['method']} ratio {model['ratio']:g} seed {model['seed']} model {model['order']}"
        print(f"left out: its model diverged in epoch {model['epoch']}: {name}")


def figure(result: dict[str, Any], file: Path, split: str = "test") -> None:
    """Draws, for each initialisation, accuracy of ends and midpoint against the mask ratio, and accuracy along the path.

    Shaded: the gap between ends and midpoint, the barrier at the midpoint. Lines are means over pairs, bars one standard
    deviation.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    inits, methods = present(result, "init"), present(result, "method")
    grid, axes = plt.subplots(len(inits), 2, figsize=(10, 3.9 * len(inits)), squeeze=False, layout="constrained")
    for row, init in zip(axes, inits, strict=True):
        for method in methods:
            _against_ratio(row[0], result, split, init, method)
        row[0].set(xlabel="mask ratio (share of anchored or pruned weights)", ylabel=f"{split} accuracy")
        row[0].set_title(TITLES[init], loc="left", fontsize=10)
        _along_path(row[1], result, split, init, methods[0])
        row[1].set(xlabel="α, from one model (0) to the other (1)")
        row[1].set_title(f"along the path, {NAMES[methods[0]]}, {TITLES[init]}", loc="left", fontsize=10)
        seen = [row["accuracy_path"] for row in select(result, init=init, split=split) if finite(row)] or [[0, 1]]
        bottom = np.floor(max(np.min(seen) - 0.03, 0) * 20) / 20
        top = np.ceil(min(np.max(seen) + 0.01, 1) * 20) / 20
        for axis in row:
            axis.set_ylim(bottom, top + 0.03 * (top - bottom))
    for axis, columns in zip(axes[-1], (3, len(present(result, "ratio"))), strict=True):
        axis.legend(fontsize=8, frameon=False, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.17))
    for axis in axes.ravel():
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    config = result["config"]
    grid.suptitle(
        f"{config['dataset']}, {named(result)}, {plural(config['epochs'], 'epoch')}, {plural(config['seeds'], 'pair')}",
        fontsize=11,
    )
    grid.savefig(file, dpi=130)
    plt.close(grid)


def _against_ratio(axis, result, split: str, init: str, method: str) -> None:
    ratios = present(result, "ratio")
    cells = [select(result, init=init, method=method, ratio=ratio, split=split) for ratio in ratios]
    ends, middle = (
        np.array([spread(rows, column) for rows in cells]).T for column in ("accuracy_ends", "accuracy_midpoint")
    )
    colour, name = COLOURS[method], NAMES[method]
    axis.errorbar(ratios, *ends, color=colour, marker="o", markersize=4, capsize=2, label=f"{name}, ends")
    axis.errorbar(
        ratios, *middle, color=colour, marker="s", markersize=4, capsize=2, linestyle="--", label=f"{name}, midpoint"
    )
    below = middle[0] < ends[0]  # elsewhere the midpoint is as good as the ends, and there is no barrier to shade
    if below.any():
        axis.fill_between(
            ratios, middle[0], ends[0], where=below, interpolate=True, color=colour, alpha=0.12, linewidth=0,
            label=f"{name}, barrier",
        )  # fmt: skip


def _along_path(axis, result, split: str, init: str, method: str) -> None:
    from matplotlib import colormaps

    ratios = present(result, "ratio")
    for i, ratio in enumerate(ratios):
        rows = select(result, init=init, method=method, ratio=ratio, split=split)
        curves = [row["accuracy_path"] for row in rows if finite(row)]
        mean = np.mean(curves, axis=0) if curves else np.full(len(result["alphas"]), np.nan)
        colour = colormaps["viridis"](0.9 * i / max(len(ratios) - 1, 1))
        axis.plot(
            result["alphas"], mean, color=colour, label=f"ratio {ratio:g}", marker="osv^DPX*"[i % 8], markersize=3.5
        )

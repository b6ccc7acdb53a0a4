"""What the figures of the experiments share: their size and look, and accuracy of ends and midpoint with the barrier shaded."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.lmc.report import COLORS, NAMES
from tna_jax.programs.reports import png

MARKS = "osv^DPX*"
GREYS = ("#1b6ca8", "#c7522a", "#3c8d53", "#7a5195", "#8a6d1d", "#444444")
"""Colors that differ in lightness too; lines also differ in marker or dash, so that they can be told apart in black and white."""


@contextlib.contextmanager
def page(file: Path, rows: int, columns: int, width: float = 3.6, height: float = 2.7, **shared: Any) -> Iterator[Any]:
    """A grid of axes (rows, columns), written to `file` at the end; sizes of one of them in inches; `shared`: `sharey="row"`, say."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained", **shared
    )
    for axis in axes.ravel():
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    yield axes
    figure.savefig(file, dpi=150)
    plt.close(figure)


def ends_and_midpoint(axis: Any, lines: list[dict[str, Any]], x: list[float], method: str, label: str = "") -> None:
    """Mean accuracy of ends (solid) and midpoint (dashed) with one standard deviation, the gap shaded where the midpoint is the lower.

    Args:
      lines: of a cell's summary, one for each of `x`.
      method: `tna` or `prune`, which gives the color.
      label: begins the entries of the legend; default: the method's name.
    """
    ends, middle = (
        np.array([[np.nan if v is None else v for v in line.get(name, (None, None))] for line in lines]).T
        for name in ("accuracy_ends", "accuracy_midpoint")
    )
    color, label = png.COLORS[COLORS[method]], label or NAMES[method]
    marks = ("o", "s") if method == "tna" else ("^", "v")
    axis.errorbar(x, *ends, color=color, marker=marks[0], markersize=4, capsize=2, label=f"{label}, ends")
    axis.errorbar(
        x, *middle, color=color, marker=marks[1], markersize=4, capsize=2, linestyle="--", label=f"{label}, midpoint"
    )
    axis.fill_between(x, np.minimum(middle[0], ends[0]), ends[0], color=color, alpha=0.12, linewidth=0)


def labels_beside(axis: Any, points: list[tuple[float, float, str]], apart: float = 0.05) -> None:
    """Names of points (x, y, name) in a column right of the axes, in the order of their heights, each with a thin line to its point.

    Args:
      apart: least distance between two names, as a share of the height of the axes. Set the limits of the axes first.
    """
    low, high = axis.get_ylim()
    ranked = sorted(points, key=lambda point: point[1])
    heights: list[float] = []
    for _, y, _ in ranked:
        wanted = (y - low) / (high - low)
        heights.append(max(wanted, heights[-1] + apart) if heights else wanted)
    for i in reversed(range(len(heights))):  # what was pushed out at the top comes down again
        limit = 1.0 if i + 1 == len(heights) else heights[i + 1] - apart
        heights[i] = min(heights[i], limit)
    for (x, y, name), height in zip(ranked, heights, strict=True):
        axis.annotate(name, (x, y), (1.03, height), textcoords="axes fraction", fontsize=6.5, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#777777", "shrinkA": 1, "shrinkB": 3})  # fmt: skip

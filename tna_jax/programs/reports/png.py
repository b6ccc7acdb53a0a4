"""A description as a PNG by Matplotlib: those of its figures that are meant for it, readable in black and white."""

import textwrap
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import atomic_file
from tna_jax.programs.reports.blocks import Description
from tna_jax.programs.reports.figures import COLORS as NAMES
from tna_jax.programs.reports.figures import (
    COUNTED,
    Contours,
    Correlations,
    Counts,
    Curve,
    Curves,
    Dots,
    Figure,
    Matrix,
)

COLORS = {"c1": "#1b6ca8", "c2": "#c7522a", "c3": "#3c8d53", "c4": "#7a5195", "c5": "#c98a1b", "c6": "#6fb1dd", "c7": "#444444",
          "muted": "#8a8f98", "ink": "black"}  # fmt: skip
"""Of the names in a description; they differ in lightness too."""
MARKERS = dict(zip(COLORS, "os^DvPX*d", strict=True))
"""Lines also differ in marker, so that they can be told apart in black and white."""
DASHES = {"solid": "-", "dash": "--", "dot": ":"}
WIDTH, HEIGHT = 5.0, 4.0
"""Inches of one figure."""


def draw(description: Description, file: Path) -> None:
    """Draws the figures of a description in two columns under its heading.

    Args:
      description: what to draw.
      file: the PNG to write, whole or not at all, or an SVG, which holds these figures whether they are meant for a PNG or not.

    Raises:
      UsageError: it cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    vector = file.suffix == ".svg"
    figures = [figure for figure in description.figures if figure.png or vector]
    columns = min(len(figures), 2)
    rows = -(-len(figures) // columns)
    grid = plt.figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    parts = grid.subfigures(rows, 1, squeeze=False)[
        :, 0
    ]  # so that long names in one row leave the others as wide as they are
    axes = np.array([part.subplots(1, columns, squeeze=False)[0] for part in parts])
    for axis, figure in zip(axes.flat, figures, strict=False):
        picture(axis, figure)
        axis.set_title(textwrap.fill(figure.title, 58), loc="left", fontsize=10)
    for axis in axes.flat[len(figures) :]:
        axis.set_visible(False)
    _share_heights(axes, figures)
    _legends(grid, parts, axes)
    grid.suptitle(
        textwrap.fill(description.heading, 65 * columns), fontsize=11 if len(description.heading) < 100 else 9
    )
    with matplotlib.rc_context(
        {"svg.hashsalt": "tna", "svg.fonttype": "none"}
    ):  # the same figure, the same bytes; text stays text
        try:
            with atomic_file(file) as unfinished:
                form = file.suffix.removeprefix(".")
                grid.savefig(unfinished, format=form, dpi=130, metadata={"Date": None} if vector else None)
        except OSError as error:
            raise UsageError(f"cannot write {file}: {error.strerror or error}") from error
    plt.close(grid)


def picture(axis: Any, figure: Figure) -> None:
    """Draws one figure on an axis of Matplotlib, without its title and legend."""
    axis.spines[["top", "right"]].set_visible(False)
    if isinstance(figure, Curves):
        curves(axis, figure)
    elif isinstance(figure, Matrix):
        matrix(axis, figure)
    elif isinstance(figure, Contours):
        contours(axis, figure)
    elif isinstance(figure, Counts):
        counts(axis, figure)
    elif isinstance(figure, Correlations):
        correlations(axis, figure)
    elif isinstance(figure, Dots):
        dots(axis, figure)
    else:
        raise TypeError(f"no picture of a {type(figure).__name__}")


def curves(axis: Any, figure: Curves) -> None:
    """Draws the lines with their spread, the gaps between two of them, and the span."""
    from matplotlib import colormaps

    shown = [curve for curve in figure.curves if curve.shown]
    named, names = [curve for curve in shown if not curve.thin], cycle(NAMES)
    colors: dict[str, str] = {}
    for curve in shown:
        group = curve.group or curve.name
        colors[curve.name] = name = colors.get(group) or curve.color or next(names)
        colors.setdefault(group, name)
        color: Any = COLORS[name]
        marker = MARKERS[name]
        if figure.ordered and curve in named:
            place = named.index(curve)
            color = colormaps["viridis"](0.9 * place / max(len(named) - 1, 1))
            marker = list(MARKERS.values())[place % len(MARKERS)]
        apart = 0.0 if figure.gaps or figure.spread != "bars" else 0.008 * float(np.ptp(curve.x))
        shift = apart * (shown.index(curve) - (len(shown) - 1) / 2)  # so that no bar covers another
        _curve(axis, curve, shift, figure.spread, color, marker, len(shown))
    if figure.chance is not None and figure.chance.std is not None:
        x, middle, std = (np.array(values, float) for values in (figure.chance.x, figure.chance.y, figure.chance.std))
        axis.fill_between(
            x, middle - std, middle + std, color="black", alpha=0.1, linewidth=0, zorder=0, label=figure.chance.name
        )
    by_name = {curve.name: curve for curve in shown}
    for label, upper, lower in figure.gaps:
        if upper in by_name and lower in by_name:
            _gap(axis, by_name[upper], by_name[lower], COLORS[colors[lower]], label)
    if figure.span:
        axis.axvspan(*figure.span, color="black", alpha=0.05, linewidth=0)
    for spot, text in figure.marks:
        axis.axvline(spot, color=COLORS["muted"], linestyle=":", linewidth=1)
        level, alignment = (0.02, "bottom") if figure.rises else (0.98, "top")
        axis.text(
            spot, level, text, transform=axis.get_xaxis_transform(), rotation=90, va=alignment, ha="right", fontsize=7
        )
    axis.set(xlabel=figure.xaxis, ylabel=figure.yaxis)
    axis.grid(alpha=0.25, linewidth=0.6)
    if figure.xaxis in COUNTED:
        axis.xaxis.get_major_locator().set_params(integer=True)
    if (span := figure.yspan()) is not None:
        axis.set_ylim(*span)
    if figure.from_zero:
        axis.set_ylim(0, 1.04 * axis.get_ylim()[1])


def _curve(axis: Any, curve: Curve, shift: float, spread: str, color: Any, marker: str, count: int) -> None:
    x, y = np.array(curve.x, float) + shift, np.array(curve.y, float)
    if curve.thin:
        axis.plot(x, y, color=color, linewidth=0.8, alpha=max(0.25, 1 / count))
        return
    style = {"color": color, "linestyle": DASHES[curve.dash], "marker": marker, "markersize": 4, "linewidth": 1.6,
             "markevery": max(1, len(x) // 12), "label": curve.label or curve.name}  # fmt: skip
    std = None if curve.std is None or spread == "numbers" else np.array(curve.std, float)
    if std is not None and spread == "bars":
        axis.errorbar(x, y, std, capsize=2, **style)
        return
    axis.plot(x, y, **style)
    if std is not None:
        axis.fill_between(x, y - std, y + std, color=color, alpha=0.12, linewidth=0)


def _gap(axis: Any, upper: Curve, lower: Curve, color: str, label: str) -> None:
    high, low = np.array(upper.y, float), np.array(lower.y, float)
    below = low < high  # elsewhere there is nothing to shade
    if below.any():
        axis.fill_between(upper.x, low, high, where=below, interpolate=True, color=color, alpha=0.12, linewidth=0, label=label)  # fmt: skip


def matrix(axis: Any, figure: Matrix) -> None:
    """Draws a symmetric matrix, with numbers where there is room."""
    filled = np.array(figure.filled(), float)
    top = figure.top
    image = axis.imshow(filled, cmap="viridis_r", vmin=0, vmax=top)
    axis.set(xlabel="model", ylabel="model")
    if len(filled) <= 12:
        axis.set_xticks(range(len(filled)), figure.names)
        axis.set_yticks(range(len(filled)), figure.names)
        for i, j in zip(*np.nonzero(np.isfinite(filled)), strict=True):
            color = "white" if filled[i, j] > top / 2 else "black"
            axis.text(j, i, f"{filled[i, j]:.3f}", ha="center", va="center", fontsize=7, color=color)
    axis.figure.colorbar(image, ax=axis, shrink=0.85)


def counts(axis: Any, figure: Counts) -> None:
    """Draws a table of counts, dark where there are many, with numbers where there is room; white is none."""
    values = np.array(figure.values, float)
    image = axis.imshow(
        np.where(values > 0, values, np.nan), cmap="Blues", vmin=0, aspect="auto", interpolation="nearest"
    )
    axis.set(xlabel=figure.axes[1], ylabel=figure.axes[0])
    axis.spines[["top", "right"]].set_visible(True)
    if len(figure.columns) <= 12:
        axis.set_xticks(range(len(figure.columns)), figure.columns, fontsize=8)
    if len(figure.rows) <= 24:
        axis.set_yticks(range(len(figure.rows)), figure.rows, fontsize=8)
        if len(figure.columns) <= 12:
            for i, j in zip(*np.nonzero(values), strict=True):
                color = "white" if values[i, j] > values.max() / 2 else "black"
                axis.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=6, color=color)
    axis.figure.colorbar(image, ax=axis, shrink=0.85)


def correlations(axis: Any, figure: Correlations) -> None:
    """Draws correlations, bright where they are large; those below 0 are as dark as 0."""
    image = axis.imshow(np.array(figure.values, float), cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axis.set(xlabel=figure.axes[1], ylabel=figure.axes[0])
    for ticks in (axis.xaxis, axis.yaxis):
        ticks.get_major_locator().set_params(integer=True)
    axis.figure.colorbar(image, ax=axis, shrink=0.85, label="correlation")


def contours(axis: Any, figure: Contours, levels: np.ndarray | None = None, numbers: bool = True) -> Any:
    """Draws the contours in grays (light: good) with numbers on the lines, and the models on them.

    Args:
      levels: where the lines are; default: `contour_levels` of the figure.
      numbers: write the levels on the lines.

    Returns:
      The filled contours, for a color bar.
    """
    values, loss = np.array(figure.values, float), figure.is_loss
    if levels is None and figure.scale is not None:
        levels = (np.geomspace if loss else np.linspace)(*figure.scale, 9)
    elif levels is None:
        levels = contour_levels(values, "loss" if loss else "accuracy")
    plane = (figure.x, figure.y, values)
    filled = axis.contourf(*plane, levels=levels, cmap="Greys" if loss else "Greys_r", extend="max", alpha=0.55, norm="log" if loss else None)  # fmt: skip
    lines = axis.contour(*plane, levels=levels, colors="black", linewidths=0.7)
    if numbers:
        axis.clabel(lines, fontsize=7, fmt="%.3g")
    for i, j in figure.paths:
        ends = figure.points[i], figure.points[j]
        axis.plot([end.x for end in ends], [end.y for end in ends], "--", color=COLORS["c2"], linewidth=1.2)
    for point, marker in zip(figure.points, "os^*", strict=False):
        axis.plot(point.x, point.y, marker, color=COLORS["c2"], markeredgecolor="black", markersize=12 if marker == "*" else 7,
                  label=f"{point.name} ({figure.measure} {point.value:.3g})")  # fmt: skip
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8)
    return filled


def contour_levels(values: np.ndarray, measure: str, count: int = 9) -> np.ndarray:
    """Returns levels from the lowest to the 95 % quantile: evenly spaced in ratio for the loss, in difference for the accuracy.

    Losses far above those of the models all look alike: the lines are closest near the models.
    """
    finite = values[np.isfinite(values)]
    if measure == "accuracy":
        return np.linspace(finite.min(), finite.max() + 1e-6, count)
    low = max(finite.min(), 1e-6)
    return np.geomspace(low, max(np.quantile(finite, 0.95), low * 1.01), count)


def dots(axis: Any, figure: Dots) -> None:
    """Draws a line for each name with its number, a dot at it, and a ring for each single value."""
    for i, dot in enumerate(figure.dots):
        color = COLORS[dot.color]
        axis.plot(
            dot.singles, [i] * len(dot.singles), "o", color="black", markerfacecolor="none", markersize=6, alpha=0.7
        )
        axis.errorbar([dot.value], [i], xerr=None if dot.singles else dot.std, color=color, capsize=2, zorder=5,
                      marker="D" if dot.singles else "o", markersize=5 if dot.singles else 8)  # fmt: skip
    labels = [f"{dot.name}  {dot.value:.4f}" for dot in figure.dots]
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    notes = [f"rings: {figure.singles}"] if figure.singles else []
    notes += [f"bars: {figure.bars}"] if figure.bars else []
    notes += ["gray: chance"] if figure.chance else []
    axis.set_xlabel(textwrap.fill(figure.what + (f" ({'; '.join(notes)})" if notes else ""), 60))
    axis.margins(x=0.08)
    if figure.chance is not None:
        axis.axvspan(*figure.chance, color="black", alpha=0.1, linewidth=0, zorder=0)
    if (span := figure.span()) is not None:
        axis.set_xlim(*span)
    axis.grid(alpha=0.25, linewidth=0.6)


def _share_heights(axes: np.ndarray, figures: list[Figure]) -> None:
    """Gives neighbors that show the same quantity over different ones the same y axis."""
    for i in range(0, len(figures) - 1, 2):
        left, right = figures[i : i + 2]
        if not isinstance(left, Curves) or not isinstance(right, Curves):
            continue
        if left.yaxis == right.yaxis and left.xaxis != right.xaxis:
            axes.flat[i].sharey(axes.flat[i + 1])
            axes.flat[i].autoscale()


def _legends(grid: Any, parts: np.ndarray, axes: np.ndarray) -> None:
    """One legend below each row whose axes have the same entries, or some of them, but for rows above one with the same; if they differ,
    one below each column's last axis with these entries."""
    entries = {axis: dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True)) for axis in axes.flat}
    rows = [max((entries[axis] for axis in row), key=len) for row in axes]
    common = all(entries[axis].keys() <= row.keys() for row, line in zip(rows, axes, strict=True) for axis in line)
    if not common:
        _under_columns(axes, entries)
        return
    homes = [*parts[:-1], grid]  # the last row's is at the foot of the figure
    for part, row, below in zip(homes, rows, [*rows[1:], {}], strict=True):
        if row and list(row) != list(below):
            longest = max(map(len, row))
            part.legend(row.values(), row.keys(), fontsize=8, frameon=False, loc="outside lower center",
                        ncols=2 if longest > 40 else 3 if longest > 22 or len(row) in (3, 5, 6) else 4)  # fmt: skip


def _under_columns(axes: np.ndarray, entries: dict[Any, dict[str, Any]]) -> None:
    from matplotlib.transforms import ScaledTranslation

    for column in axes.T:
        for axis, below in zip(column, [*column[1:], None], strict=True):
            texts = list(entries[axis])
            if texts and (below is None or list(entries[below]) != texts):
                columns = 3 if max(map(len, texts)) < 22 else 1 if max(map(len, texts)) > 40 else 2
                scale = axis.figure.dpi_scale_trans
                under = axis.transAxes + ScaledTranslation(0, -0.5, scale)  # below the name of the x axis
                axis.legend(
                    fontsize=8,
                    frameon=False,
                    ncols=columns,
                    loc="upper center",
                    bbox_to_anchor=(0.5, 0),
                    bbox_transform=under,
                )

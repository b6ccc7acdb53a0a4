"""Charts as data for Plotly: curves with their spread, a matrix of pairs, contours of a plane. Sizes and fonts are the page's."""

import dataclasses
import html
from typing import Any

import numpy as np

from tna_jax.programs.reports.blocks import Figure, Key, Table, format_text

COLOURS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star", "cross")
COUNTED = ("epoch", "step", "round", "iteration")
"""Axes of whole numbers."""
DASHES = {"solid": "solid", "dash": "dash", "dot": "dot"}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line; points that are None are left out."""

    name: str
    x: list[float]
    y: list[float | None]
    spread: list[float | None] | None = None
    """Half the height of the band around it."""
    colour: str = ""
    """Default: the next one of the palette."""
    dash: str = "solid"
    band: bool = True
    """Draw the spread as a band; else it is in the tooltip and the table alone."""
    thin: bool = False
    """One of many: no markers, no legend entry of its own; it belongs to the `group`."""
    group: str = ""
    """Curves of one group share an entry of the legend, named for it."""
    shown: bool = True


def curves(title: str, alt: str, found: list[Curve], xaxis: str, yaxis: str, **axes: Any) -> Figure:
    """A figure of lines.

    Args:
      title: above it; alt: for readers who do not see it.
      found: the lines, in the order of the legend.
      xaxis, yaxis: what the axes show.
      axes: further properties of Plotly's axes, `xaxis_...` and `yaxis_...`.
    """
    traces: list[dict[str, Any]] = []
    keys: dict[str, Key] = {}
    next_colour = iter(COLOURS * (1 + len(found) // len(COLOURS)))
    for curve in found:
        name = curve.group or curve.name
        colour = keys[name].colour if name in keys else curve.colour or next(next_colour)
        key = keys.setdefault(name, Key(name, colour, curve.dash, [], curve.shown))
        symbol = SYMBOLS[COLOURS.index(colour)] if colour in COLOURS else "circle"
        visible: bool | str = True if curve.shown else "legendonly"
        if curve.spread is not None and curve.band and not curve.thin:
            key.traces.append(len(traces))
            traces.append(_band(curve, colour, visible))
        key.traces.append(len(traces))
        traces.append({
            "type": "scatter", "name": escaped(curve.name), "x": curve.x, "y": curve.y, "visible": visible,
            "mode": "lines" if curve.thin or len(curve.x) > 60 else "lines+markers",
            "line": {"color": f"@{colour}/0.3" if curve.thin else f"@{colour}", "width": 1 if curve.thin else 2,
                     "dash": DASHES[curve.dash]},
            "marker": {"symbol": symbol, "size": 6, "color": f"@{colour}"},
            "customdata": curve.spread, "hovertemplate": _hover(curve, xaxis),
        })  # fmt: skip
    layout = {"xaxis": {"title": {"text": escaped(xaxis)}}, "yaxis": {"title": {"text": escaped(yaxis)}}}
    if xaxis in COUNTED:
        few = len({x for curve in found for x in curve.x}) <= 12
        axes = {"xaxis_tickformat": "d", **({"xaxis_dtick": 1} if few else {}), **axes}
    for name, value in axes.items():
        axis, _, rest = name.partition("_")
        layout[axis][rest] = value
    return Figure(title, alt, traces, layout, list(keys.values()), _numbers(title, found, xaxis))


def _band(curve: Curve, colour: str, visible: bool | str) -> dict[str, Any]:
    points = [
        (x, y, s)
        for x, y, s in zip(curve.x, curve.y, curve.spread or [], strict=True)
        if y is not None and s is not None
    ]
    x = [p[0] for p in points]
    return {
        "type": "scatter", "mode": "lines", "x": x + x[::-1],
        "y": [y + s for _, y, s in points] + [y - s for _, y, s in points[::-1]],
        "fill": "toself", "fillcolor": f"@{colour}/0.14", "line": {"width": 0}, "hoverinfo": "skip", "visible": visible,
    }  # fmt: skip


def _hover(curve: Curve, xaxis: str) -> str:
    spread = " ± %{customdata:.4f}" if curve.spread is not None and None not in curve.spread else ""
    return f"<b>{escaped(curve.name)}</b><br>{escaped(xaxis)} %{{x}}<br>%{{y:.4f}}{spread}<extra></extra>"


def _numbers(title: str, found: list[Curve], xaxis: str) -> Table:
    shown = [curve for curve in found if not curve.thin]
    points = sorted({x for curve in shown for x in curve.x})
    rows = []
    for x in points:
        cells = []
        for curve in shown:
            at = curve.x.index(x) if x in curve.x else None
            value = None if at is None else curve.y[at]
            spread = None if at is None or curve.spread is None else curve.spread[at]
            cells.append(
                format_text(value) + (f" ± {format_text(spread)}" if spread is not None and value is not None else "")
            )
        rows.append([f"{round(x, 6):g}", *cells])
    return Table(title, [xaxis, *(curve.name for curve in shown)], rows)


def matrix(title: str, alt: str, names: list[str], values: dict[tuple[int, int], float], what: str) -> Figure:
    """A symmetric matrix of what is between every two models, dark where it is large, with numbers where there is room."""
    count = len(names)
    filled: list[list[float | None]] = [[None] * count for _ in names]
    for (i, j), value in values.items():
        filled[i][j] = filled[j][i] = value if np.isfinite(value) else None
    finite = [value for value in values.values() if np.isfinite(value)]
    ends = {"title": {"text": "model"}, "type": "category", "showgrid": False}
    trace: dict[str, Any] = {
        "type": "heatmap", "z": filled, "x": names, "y": names, "zmin": 0, "zmax": max([0.01, *finite]),
        "colorscale": [[0, "@low"], [1, "@c1"]], "xgap": 2, "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"models %{{y}} and %{{x}}<br>{escaped(what)} %{{z:.4f}}<extra></extra>",
        **({"texttemplate": "%{z:.3f}", "textfont": {"size": 10}} if count <= 8 else {}),
    }  # fmt: skip
    rows = [[names[i], *(format_text(v) if v is not None else "" for v in filled[i])] for i in range(count)]
    layout = {"xaxis": dict(ends), "yaxis": {**ends, "autorange": "reversed"}}
    return Figure(title, alt, [trace], layout, [], Table(title, ["model", *names], rows), square=True)


def contours(
    title: str,
    alt: str,
    x: list[float],
    y: list[float],
    values: list[list[float | None]],
    points: list[dict[str, Any]],
    measure: str,
) -> Figure:
    """Contours of `loss` (logarithmic) or `accuracy` on a plane, light where it is good, with the models as marks.

    Args:
      values: (len(y), len(x)).
      points: name, x, y and `measure` of each model.
    """
    array = np.array([[np.nan if v is None else v for v in row] for row in values], float)
    shown = np.log10(np.maximum(array, 1e-6)) if measure == "loss" else array
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(np.quantile(finite, 0.97))) if len(finite) else (0.0, 1.0)
    ticks = np.linspace(low, high, 6)
    trace: dict[str, Any] = {
        "type": "contour", "x": x, "y": y, "z": _nulls(shown), "zmin": low, "zmax": high, "customdata": _nulls(array),
        "colorscale": [[0, "@low"], [1, "@c1"]] if measure == "loss" else [[0, "@c1"], [1, "@low"]],
        "contours": {"start": low, "end": high, "size": max((high - low) / 9, 1e-6), "coloring": "heatmap"},
        "line": {"width": 0.6, "color": "@muted"},
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickvals": ticks.tolist(),
                     "ticktext": [f"{10**t if measure == 'loss' else t:.3g}" for t in ticks]},
        "hovertemplate": f"{measure} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    marks = {
        "type": "scatter", "mode": "markers+text", "x": [p["x"] for p in points], "y": [p["y"] for p in points],
        "text": [escaped(p["name"]) for p in points], "textposition": "top center", "textfont": {"color": "@ink"},
        "customdata": [p[measure] for p in points],
        "marker": {"symbol": ["circle", "square", "triangle-up"], "size": 10, "color": "@c2",
                   "line": {"color": "@paper", "width": 1.5}},
        "hovertemplate": f"<b>%{{text}}</b><br>{measure} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    axis = {"title": {"text": "distance in weights"}, "showgrid": False, "zeroline": False}
    layout = {"xaxis": dict(axis), "yaxis": {**axis, "scaleanchor": "x", "constrain": "domain"}}
    layout["xaxis"]["constrain"] = "domain"
    rows = [[p["name"], format_text(p["x"]), format_text(p["y"]), format_text(p[measure])] for p in points]
    return Figure(title, alt, [trace, marks], layout, [], Table(title, ["model", "x", "y", measure], rows), square=True)


def dots(title: str, alt: str, rows: list[tuple[str, float, float | None]], what: str) -> Figure:
    """A named number a row, with its spread: for comparisons in which a bar from 0 would hide the differences."""
    names = [escaped(name) for name, _, _ in rows]
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "x": [None if not np.isfinite(v) else v for _, v, _ in rows], "y": names,
        "error_x": {"type": "data", "array": [s if s is not None and np.isfinite(s) else 0 for _, _, s in rows], "color": "@c1/0.5", "thickness": 1.5},
        "marker": {"size": 10, "color": "@c1"}, "hovertemplate": "<b>%{y}</b><br>%{x:.4f}<extra></extra>",
    }  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": escaped(what)}},
        "yaxis": {"autorange": "reversed", "type": "category", "automargin": True},
    }
    cells = [
        [name, format_text(value) + (f" ± {format_text(std)}" if std is not None else "")] for name, value, std in rows
    ]
    return Figure(title, alt, [trace], layout, [], Table(title, ["", what], cells))


def _nulls(array: np.ndarray) -> list[list[float | None]]:
    return [[float(v) if np.isfinite(v) else None for v in row] for row in array]


def escaped(name: str) -> str:
    """Text for Plotly, which reads a few HTML tags in names and labels."""
    return html.escape(name, quote=False)

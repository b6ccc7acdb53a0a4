"""Figures for Plotly, as data: colors are names of the page's (`@c1`, `@c1/0.2`); sizes and fonts are the page's too."""

import dataclasses
from typing import Any

from tna_jax.programs.reports import figure_data, planes
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import (
    COLORS,
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
from tna_jax.programs.reports.planes import escaped
from tna_jax.programs.reports.statistics import or_none

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star", "cross")


@dataclasses.dataclass(frozen=True)
class Key:
    """An entry of a figure's legend: a button that shows and hides traces."""

    name: str
    color: str
    dash: str
    traces: list[int]
    """Their places in the figure."""
    shown: bool = True


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure as the page needs it."""

    title: str
    alt: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    legend: list[Key]
    table: Table
    square: bool
    csv: str
    """Its data, unrounded."""
    file: str
    """How files of it are named."""
    turned: dict[str, Any] | None = None
    """Of a plane: traces and layout in three dimensions."""


def plot(figure: Figure) -> Plot:
    """Returns the figure for Plotly."""
    legend: list[Key] = []
    if isinstance(figure, Curves):
        traces, layout, legend = _curves(figure)
    elif isinstance(figure, Matrix):
        traces, layout = _matrix(figure)
    elif isinstance(figure, Contours):
        traces, layout = planes.flat(figure)
    elif isinstance(figure, Counts):
        traces, layout = _counts(figure)
    elif isinstance(figure, Correlations):
        traces, layout = _correlations(figure)
    elif isinstance(figure, Dots):
        traces, layout = _dots(figure)
    else:
        raise TypeError(f"no picture of a {type(figure).__name__}")
    square = isinstance(figure, Matrix | Contours | Correlations)
    turned = planes.turned(figure) if isinstance(figure, Contours) else None
    data, file = figure_data.as_csv(figure), figure_data.file_name(figure.title)
    return Plot(figure.title, figure.alt, traces, layout, legend, figure.table(), square, data, file, turned)


def _curves(figure: Curves) -> tuple[list[dict[str, Any]], dict[str, Any], list[Key]]:
    traces: list[dict[str, Any]] = []
    keys: dict[str, Key] = {}
    next_color = iter(COLORS * (1 + len(figure.curves) // len(COLORS)))
    if figure.chance is not None:
        keys[figure.chance.name] = Key(figure.chance.name, "muted", "solid", [0])
        traces.append(_band(figure.chance, "muted", True))
    for curve in figure.curves:
        name = curve.group or curve.name
        color = keys[name].color if name in keys else curve.color or next(next_color)
        key = keys.setdefault(name, Key(name, color, curve.dash, [], curve.shown))
        symbol = SYMBOLS[COLORS.index(color)] if color in COLORS else "circle"
        visible: bool | str = True if curve.shown else "legendonly"
        if curve.std is not None and figure.spread != "numbers" and not curve.thin:
            key.traces.append(len(traces))
            traces.append(_band(curve, color, visible))
        key.traces.append(len(traces))
        traces.append({
            "type": "scatter", "name": escaped(curve.name), "x": curve.x, "y": curve.y, "visible": visible,
            "mode": "lines" if curve.thin or len(curve.x) > 60 else "lines+markers",
            "line": {"color": f"@{color}/0.3" if curve.thin else f"@{color}", "width": 1 if curve.thin else 2,
                     "dash": curve.dash},
            "marker": {"symbol": symbol, "size": 6, "color": f"@{color}"},
            "customdata": curve.std, "hovertemplate": _hover(curve, figure.xaxis),
        })  # fmt: skip
    xaxis: dict[str, Any] = {"title": {"text": escaped(figure.xaxis)}}
    yaxis: dict[str, Any] = {"title": {"text": escaped(figure.yaxis)}}
    if figure.xaxis in COUNTED:
        few = len({x for curve in figure.curves for x in curve.x}) <= 12
        xaxis |= {"tickformat": "d", **({"dtick": 1} if few else {})}
    if (span := figure.yspan()) is not None:
        yaxis["range"] = [0, span[1]] if figure.from_zero else list(span)
    elif figure.from_zero:
        yaxis["rangemode"] = "tozero"
    layout: dict[str, Any] = {"xaxis": xaxis, "yaxis": yaxis}
    if figure.marks:
        layout["shapes"] = [{"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
                             "line": {"color": "@muted", "width": 1, "dash": "dot"}} for x, _ in figure.marks]  # fmt: skip
        layout["annotations"] = [{"x": x, "xref": "x", "y": 0 if figure.rises else 1, "yref": "paper", "xanchor": "right", "yanchor": "bottom" if figure.rises else "top", "textangle": -90,
                                  "showarrow": False, "text": escaped(text), "font": {"size": 10}} for x, text in figure.marks]  # fmt: skip
    return traces, layout, list(keys.values())


def _band(curve: Curve, color: str, visible: bool | str) -> dict[str, Any]:
    points = [
        (x, y, std)
        for x, y, std in zip(curve.x, curve.y, curve.std or [], strict=True)
        if y is not None and std is not None
    ]
    x = [p[0] for p in points]
    return {
        "type": "scatter", "mode": "lines", "x": x + x[::-1],
        "y": [y + s for _, y, s in points] + [y - s for _, y, s in points[::-1]],
        "fill": "toself", "fillcolor": f"@{color}/0.14", "line": {"width": 0}, "hoverinfo": "skip", "visible": visible,
    }  # fmt: skip


def _hover(curve: Curve, xaxis: str) -> str:
    spread = " ± %{customdata:.4f}" if curve.std is not None and None not in curve.std else ""
    return f"<b>{escaped(curve.name)}</b><br>{escaped(xaxis)} %{{x}}<br>%{{y:.4f}}{spread}<extra></extra>"


def _matrix(figure: Matrix) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Dark where it is large, with numbers where there is room."""
    filled = figure.filled()
    ends = {"title": {"text": "model"}, "type": "category", "showgrid": False}
    trace: dict[str, Any] = {
        "type": "heatmap", "z": filled, "x": figure.names, "y": figure.names, "zmin": 0,
        "zmax": figure.top,
        "colorscale": [[0, "@low"], [1, "@c1"]], "xgap": 2, "ygap": 2,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"models %{{y}} and %{{x}}<br>{escaped(figure.what)} %{{z:.4f}}<extra></extra>",
        **({"texttemplate": "%{z:.3f}", "textfont": {"size": 10}} if len(filled) <= 8 else {}),
    }  # fmt: skip
    return [trace], {"xaxis": dict(ends), "yaxis": {**ends, "autorange": "reversed"}}


def _counts(figure: Counts) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Dark where there are many."""
    ends = {"type": "category", "showgrid": False}
    trace: dict[str, Any] = {
        "type": "heatmap", "z": figure.values, "x": figure.columns, "y": figure.rows, "zmin": 0,
        "colorscale": [[0, "@low"], [1, "@c1"]], "xgap": 1, "ygap": 1, "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"{escaped(figure.axes[0])} %{{y}}, {escaped(figure.axes[1])} %{{x}}<br>%{{z}} {escaped(figure.what)}<extra></extra>",
    }  # fmt: skip
    xaxis, yaxis = ({**ends, "title": {"text": escaped(name)}} for name in (figure.axes[1], figure.axes[0]))
    return [trace], {"xaxis": xaxis, "yaxis": {**yaxis, "autorange": "reversed"}}


def _correlations(figure: Correlations) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Bright where they are large, as on the PNG."""
    down, across = map(escaped, figure.axes)
    trace: dict[str, Any] = {
        "type": "heatmap", "z": figure.values, "zmin": 0, "zmax": 1, "colorscale": "Inferno",
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"{down} %{{y}}, {across} %{{x}}<br>correlation %{{z:.3f}}<extra></extra>",
    }  # fmt: skip
    xaxis, yaxis = ({"title": {"text": name}, "showgrid": False, "tickformat": "d"} for name in (across, down))
    return [trace], {"xaxis": xaxis, "yaxis": {**yaxis, "autorange": "reversed"}}


def _dots(figure: Dots) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    singles = [(escaped(dot.name), or_none(value)) for dot in figure.dots for value in dot.singles]
    rings: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "x": [value for _, value in singles], "y": [name for name, _ in singles],
        "marker": {"symbol": "circle-open", "size": 8, "color": "@muted"},
        "hovertemplate": f"{escaped(figure.singles)} %{{x:.4f}}<extra></extra>",
    }  # fmt: skip
    means: dict[str, Any] = {
        "type": "scatter", "mode": "markers", "x": [or_none(dot.value) for dot in figure.dots],
        "y": [escaped(dot.name) for dot in figure.dots],
        "error_x": {"type": "data", "array": [dot.std or 0 for dot in figure.dots], "color": "@c1/0.5", "thickness": 1.5},
        "marker": {"size": 10, "color": [f"@{dot.color}" for dot in figure.dots]},
        "hovertemplate": "<b>%{y}</b><br>%{x:.4f}<extra></extra>",
    }  # fmt: skip
    order = [escaped(dot.name) for dot in figure.dots]
    yaxis = {"autorange": "reversed", "type": "category", "automargin": True, "categoryorder": "array",
             "categoryarray": order}  # fmt: skip
    bars = f" (bars: {figure.bars})" if figure.bars else ""
    xaxis: dict[str, Any] = {"title": {"text": escaped(figure.what + bars)}}
    if (span := figure.span()) is not None:
        xaxis["range"] = list(span)
    layout: dict[str, Any] = {"xaxis": xaxis, "yaxis": yaxis}
    if figure.chance is not None:
        low, high = figure.chance
        layout["shapes"] = [{"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1, "layer": "below",
                             "fillcolor": "@muted/0.14", "line": {"width": 0}}]  # fmt: skip
    return [*([rings] if singles else []), means], layout

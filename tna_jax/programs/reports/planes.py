"""A loss or an accuracy on a plane, for Plotly: as contours, and in three dimensions, where it can be turned."""

import html
from typing import Any

import numpy as np

from tna_jax.programs.reports.figures import Contours
from tna_jax.programs.reports.statistics import or_none

SYMBOLS = ("circle", "square", "triangle-up", "star")
SOLID = ("circle", "square", "diamond", "cross")
"""Those of a space, which has fewer."""
ALONG = 41
"""Points of a line that lies on the surface."""


def flat(figure: Contours) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns traces and layout of the contours, light where it is good."""
    low, high = _ends(figure)
    trace: dict[str, Any] = {
        "type": "contour", "x": figure.x, "y": figure.y, "z": _nulls(_height(figure)), "zmin": low, "zmax": high,
        "customdata": _nulls(np.array(figure.values, float)), "colorscale": _colors(figure), "colorbar": _colorbar(figure),
        "contours": {"start": low, "end": high, "size": max((high - low) / 9, 1e-6), "coloring": "heatmap"},
        "line": {"width": 0.6, "color": "@muted"},
        "hovertemplate": f"{escaped(figure.measure)} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    points = figure.points
    lines = [
        {
            "type": "scatter", "mode": "lines", "x": [points[i].x, points[j].x], "y": [points[i].y, points[j].y],
            "line": {"color": "@c2", "width": 1.5, "dash": "dash"}, "hoverinfo": "skip",
        }
        for i, j in figure.paths
    ]  # fmt: skip
    marks = {
        "type": "scatter", "mode": "markers+text", "x": [p.x for p in points], "y": [p.y for p in points],
        "text": [escaped(p.name) for p in points], "textposition": "top center", "textfont": {"color": "@ink"},
        "customdata": [or_none(p.value) for p in points],
        "marker": {"symbol": list(SYMBOLS[: len(points)]), "size": [10] * 3 + [14] * (len(points) - 3), "color": "@c2",
                   "line": {"color": "@paper", "width": 1.5}},
        "hovertemplate": f"<b>%{{text}}</b><br>{escaped(figure.measure)} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    axis = {"title": {"text": "distance in weights"}, "showgrid": False, "zeroline": False, "constrain": "domain"}
    return [trace, *lines, marks], {"xaxis": axis, "yaxis": {**axis, "scaleanchor": "x"}}


def turned(figure: Contours) -> dict[str, Any]:
    """Returns traces and layout of the surface, whose colors are those of the contours; what is above them is cut off."""
    low, high = _ends(figure)
    height = np.clip(_height(figure), low, high) if low < high else _height(figure)
    surface: dict[str, Any] = {
        "type": "surface", "x": figure.x, "y": figure.y, "z": _nulls(height), "cmin": low, "cmax": high,
        "customdata": _nulls(np.array(figure.values, float)), "colorscale": _colors(figure), "colorbar": _colorbar(figure),
        "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.05},
        "contours": {"z": {"show": True, "start": low, "end": high, "size": max((high - low) / 9, 1e-6), "color": "@muted", "width": 1}},
        "hovertemplate": f"{escaped(figure.measure)} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    lift = 0.01 * (high - low)
    lines = []
    for i, j in figure.paths:
        share = np.linspace(0, 1, ALONG)
        x, y = ((1 - share) * getattr(figure.points[i], k) + share * getattr(figure.points[j], k) for k in ("x", "y"))
        lines.append({
            "type": "scatter3d", "mode": "lines", "x": x.tolist(), "y": y.tolist(), "z": [or_none(z + lift) for z in _at(figure, height, x, y)],
            "line": {"color": "@c2", "width": 4}, "hoverinfo": "skip",
        })  # fmt: skip
    points = figure.points
    x, y = (np.array([getattr(p, k) for p in points]) for k in ("x", "y"))
    marks = {
        "type": "scatter3d", "mode": "markers+text", "x": x.tolist(), "y": y.tolist(), "z": [or_none(z + 4 * lift) for z in _at(figure, height, x, y)],
        "text": [escaped(p.name) for p in points], "textposition": "top center", "textfont": {"color": "@ink"},
        "customdata": [or_none(p.value) for p in points],
        "marker": {"symbol": list(SOLID[: len(points)]), "size": 5, "color": "@c2"},
        "hovertemplate": f"<b>%{{text}}</b><br>{escaped(figure.measure)} %{{customdata:.4f}}<extra></extra>",
    }  # fmt: skip
    ticks = _colorbar(figure)
    axis = {"title": {"text": "distance in weights"}, "color": "@muted", "gridcolor": "@line", "zeroline": False}
    vertical = {"title": {"text": ""}, "color": "@muted", "gridcolor": "@line", "range": [low, high + 0.1 * (high - low)],
                "tickvals": ticks["tickvals"], "ticktext": ticks["ticktext"]}  # fmt: skip
    scene = {"xaxis": axis, "yaxis": axis, "zaxis": vertical, "aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.6},
             "camera": {"eye": {"x": 1.4, "y": -1.4, "z": 1.2}}, "dragmode": "turntable"}  # fmt: skip
    return {"data": [surface, *lines, marks], "layout": {"scene": scene}}


def _height(figure: Contours) -> np.ndarray:
    """What is drawn: of a loss its decimal logarithm."""
    array = np.array(figure.values, float)
    return np.log10(np.maximum(array, 1e-6)) if figure.is_loss else array


def _ends(figure: Contours) -> tuple[float, float]:
    low, high = figure.ends()
    if figure.is_loss:
        low, high = (float(np.log10(max(end, 1e-6))) for end in (low, high))
    return low, high


def _colors(figure: Contours) -> list[list[Any]]:
    return [[0, "@low"], [1, "@c1"]] if figure.is_loss else [[0, "@c1"], [1, "@low"]]


def _colorbar(figure: Contours) -> dict[str, Any]:
    ticks = np.linspace(*_ends(figure), 6)
    texts = [f"{10**t if figure.is_loss else t:.3g}" for t in ticks]
    return {"thickness": 10, "outlinewidth": 0, "tickvals": ticks.tolist(), "ticktext": texts}


def _at(figure: Contours, height: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) heights of the surface at points, linear between those of the grid."""
    columns, rows = np.array(figure.x, float), np.array(figure.y, float)
    i = np.clip(np.searchsorted(rows, y) - 1, 0, max(len(rows) - 2, 0))
    j = np.clip(np.searchsorted(columns, x) - 1, 0, max(len(columns) - 2, 0))
    if len(rows) < 2 or len(columns) < 2:
        return np.asarray(height[i, j])
    u, v = (y - rows[i]) / (rows[i + 1] - rows[i]), (x - columns[j]) / (columns[j + 1] - columns[j])
    near = (1 - v) * height[i, j] + v * height[i, j + 1]
    return np.asarray((1 - u) * near + u * ((1 - v) * height[i + 1, j] + v * height[i + 1, j + 1]))


def _nulls(array: np.ndarray) -> list[list[float | None]]:
    return [[or_none(value) for value in row] for row in array]


def escaped(name: str) -> str:
    """Returns text for Plotly, which reads a few HTML tags in names and labels."""
    return html.escape(name, quote=False)

"""The data of a figure as CSV: every number that is drawn, unrounded."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tna_jax.programs.reports.figures import Contours, Correlations, Counts, Curve, Curves, Dots, Figure, Matrix


def as_csv(figure: Figure) -> str:
    """Returns the data of a figure: a line for each point, of matrices one for each row; the first line names the columns."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in _rows(figure))
    return text.getvalue()


def file_name(title: str) -> str:
    """Returns a title as the name of a file, without its ending: `accuracy-along-the-path`."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("α", "alpha")).strip("-") or "figure"


def _rows(figure: Figure) -> Iterator[Sequence[Any]]:
    if isinstance(figure, Curves):
        yield "curve", figure.xaxis, figure.yaxis, "standard deviation"
        for curve in figure.curves:
            yield from _points(curve)
        if figure.chance is not None:
            yield from _points(figure.chance)
    elif isinstance(figure, Contours):
        yield "model", "x", "y", figure.measure
        yield from ((point.name, point.x, point.y, point.value) for point in figure.points)
        for y, row in zip(figure.y, figure.values, strict=True):
            yield from (("", x, y, value) for x, value in zip(figure.x, row, strict=True))
    elif isinstance(figure, Matrix):
        yield "model", *figure.names
        yield from ((name, *row) for name, row in zip(figure.names, figure.filled(), strict=True))
    elif isinstance(figure, Counts):
        yield figure.axes[0], *figure.columns
        yield from ((name, *row) for name, row in zip(figure.rows, figure.values, strict=True))
    elif isinstance(figure, Correlations):
        yield f"{figure.axes[0]} \\ {figure.axes[1]}", *range(len(figure.values))
        yield from ((i, *row) for i, row in enumerate(figure.values))
    elif isinstance(figure, Dots):
        yield "name", "what", figure.what, figure.bars or "standard deviation"
        for dot in figure.dots:
            yield dot.name, "mean" if dot.singles else "", dot.value, dot.std
            yield from ((dot.name, figure.singles, single, None) for single in dot.singles)
    else:
        raise TypeError(f"no data of a {type(figure).__name__}")


def _points(curve: Curve) -> Iterator[Sequence[Any]]:
    stds = curve.std or [None] * len(curve.x)
    return ((curve.name, x, y, std) for x, y, std in zip(curve.x, curve.y, stds, strict=True))


def _cell(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else value

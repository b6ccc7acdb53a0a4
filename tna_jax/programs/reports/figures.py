"""Figures as data: curves with their spread, a matrix of pairs, contours of a plane, dots. Colors are names: `c1` to `c7`, `muted`, `ink`."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, format_number, or_none

COLORS = ("c1", "c2", "c3", "c4", "c5", "c6", "c7")
COUNTED = ("epoch", "step", "round", "iteration", "models averaged, the best first")
"""Axes of whole numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """What every figure has."""

    title: str
    alt: str
    """What a reader who does not see it should know."""
    png: bool = True
    """Whether it is on the PNG too; the page has all."""

    def table(self) -> Table:
        """Returns the numbers that are drawn."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line; points that are None are left out."""

    name: str
    x: list[float]
    y: list[float | None]
    std: list[float | None] | None = None
    color: str = ""
    """Default: the next one of the palette."""
    dash: Literal["solid", "dash", "dot"] = "solid"
    thin: bool = False
    """One of many: no markers, no legend entry of its own; it belongs to the `group`."""
    group: str = ""
    """Curves of one group share an entry of the legend, named for it."""
    shown: bool = True
    """If not, the page shows it when its entry of the legend is pressed, and the PNG does not."""
    label: str = ""
    """Its entry of the PNG's legend; default: the name."""

    @classmethod
    def of(cls, name: str, x: Sequence[float], stats: Sequence[Sequence[float | None]], **style: Any) -> "Curve":
        """Returns the curve of [mean, standard deviation or None] for each x."""
        means, stds = ([value[i] for value in stats] for i in (0, 1))
        means = [None if mean is None else or_none(mean) for mean in means]
        return cls(name, list(x), means, stds if any(std is not None for std in stds) else None, **style)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves(Figure):
    """Lines over one axis."""

    curves: list[Curve]
    xaxis: str
    yaxis: str
    spread: Literal["bars", "band", "numbers"] = "band"
    """How the PNG draws a standard deviation; the page has a band for the first two. `numbers`: in the table alone."""
    gaps: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    """(name, upper curve, lower curve): shaded on the PNG wherever the lower one is below."""
    span: tuple[float, float] | None = None
    """A part of the x axis that the PNG shades."""
    compared: bool = False
    """Of several runs the page draws each of these curves again on one chart."""
    from_zero: bool = False
    ordered: bool = False
    """The curves are those of a growing number: the PNG colors them dark to light."""
    least: float = 0.0
    """The y axis spans at least this much, so that what is smaller than chance does not fill it."""
    marks: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    """Places on the x axis at which something happened, and what: upright lines."""
    chance: Curve | None = None
    """Where a curve without any effect may lie: its y and standard deviation are drawn as a band under all others."""

    @property
    def rises(self) -> bool:
        """Whether the first curve ends above where it begins: what is written beside a mark stands below it then, else above."""
        values = [y for curve in self.curves[:1] for y in curve.y if y is not None]
        return bool(values) and values[-1] > values[0]

    def yspan(self) -> tuple[float, float] | None:
        """Returns the ends of a y axis of length `least` around all values; None where they span more."""
        values = [y for curve in self.curves for y in curve.y if y is not None]
        if not values or not self.least > max(values) - min(values):
            return None
        middle = (max(values) + min(values)) / 2
        return middle - self.least / 2, middle + self.least / 2

    def table(self) -> Table:
        """Returns a row for each x, a column for each curve that is not one of many."""
        named = [curve for curve in self.curves if not curve.thin]
        rows = []
        for x in sorted({x for curve in named for x in curve.x}):
            points = [(curve, curve.x.index(x)) if x in curve.x else (curve, None) for curve in named]
            cells = ["–" if i is None else format_mean_std([c.y[i], c.std[i] if c.std else None]) for c, i in points]
            rows.append([f"{round(x, 6):g}", *cells])
        return Table(self.title, [self.xaxis, *(curve.name for curve in named)], rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix(Figure):
    """What is between every two models, symmetric."""

    names: list[str]
    values: dict[tuple[int, int], float]
    what: str
    least: float = 0.01
    """The colors span at least 0 to this."""

    @property
    def top(self) -> float:
        """The value of the darkest color."""
        return max([self.least, *(value for row in self.filled() for value in row if value is not None)])

    def filled(self) -> list[list[float | None]]:
        """Returns all entries, None for those that are missing or not finite."""
        pairs = {**self.values, **{(j, i): value for (i, j), value in self.values.items()}}
        count = range(len(self.names))
        return [[v if (v := pairs.get((i, j))) is not None and v - v == 0 else None for j in count] for i in count]

    def table(self) -> Table:
        """Returns the matrix."""
        cells = [["" if value is None else format_number(value) for value in row] for row in self.filled()]
        rows = [[name, *row] for name, row in zip(self.names, cells, strict=True)]
        return Table(self.title, ["model", *self.names], rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts(Figure):
    """How many there are of each kind in each row: a picture of a partition."""

    rows: list[str]
    columns: list[str]
    values: list[list[int]]
    """(rows, columns)."""
    what: str
    """What is counted: `training examples`."""
    axes: tuple[str, str] = ("client", "class")

    def table(self) -> Table:
        """Returns the counts, with the sum of each row."""
        rows = [[name, *map(str, row), str(sum(row))] for name, row in zip(self.rows, self.values, strict=True)]
        return Table(self.title, [self.axes[0], *self.columns, "all"], rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Correlations(Figure):
    """How alike the hidden units of two networks are, every unit with every other: bright where they are alike."""

    values: list[list[float]]
    """(n, n) in [-1, 1]."""
    axes: tuple[str, str]
    """What stands down and across: `unit of model 0`."""
    compared: bool = False
    """Of several runs the page shows it once more, side by side."""

    def table(self) -> Table:
        """Returns a row for each unit: with the unit at its place, and with the one that is most like it."""
        rows = [[str(i), format_number(row[i], 3), f"{format_number(max(row), 3)} ({row.index(max(row))})"]
                for i, row in enumerate(self.values)]  # fmt: skip
        return Table(self.title, [self.axes[0], "at the same place", "most like it"], rows)


@dataclasses.dataclass(frozen=True)
class Point:
    """A model on a plane."""

    name: str
    x: float
    y: float
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contours(Figure):
    """A loss (on a logarithmic scale), an accuracy or another measure on a plane, with the models as marks."""

    x: list[float]
    y: list[float]
    values: list[list[float | None]]
    """(len(y), len(x))."""
    points: list[Point]
    measure: str
    """What it is, with its unit: `loss`, `accuracy`, `loss (nats a token)`."""
    larger_is_better: bool | None = None
    """If not, its scale is logarithmic; default: as it is of `accuracy`, and not of others."""
    paths: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """Points, by their places in `points`, between which a straight line is drawn."""
    scale: tuple[float, float] | None = None
    """The values of the lightest and the darkest color; default: those of this plane. Planes that stand side by side share one."""

    def ends(self, quantile: float = 0.97) -> tuple[float, float]:
        """Returns the values between which colors differ: the scale, or of the lowest value and a high quantile."""
        if self.scale is not None:
            return self.scale
        array = np.array(self.values, float)
        finite = array[np.isfinite(array)]
        return (float(finite.min()), float(np.quantile(finite, quantile))) if len(finite) else (0.0, 1.0)

    @property
    def is_loss(self) -> bool:
        """Whether small values are good, on a logarithmic scale."""
        return self.measure != "accuracy" if self.larger_is_better is None else not self.larger_is_better

    def table(self) -> Table:
        """Returns a row for each model."""
        rows = [[p.name, *map(format_number, (p.x, p.y, p.value))] for p in self.points]
        return Table(self.title, ["model", "x", "y", self.measure], rows)


@dataclasses.dataclass(frozen=True)
class Dot:
    """A named number with its spread, and the single values that it is the mean of."""

    name: str
    value: float
    std: float | None = None
    singles: list[float] = dataclasses.field(default_factory=list)
    color: str = "c1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots(Figure):
    """A named number a row: for comparisons in which a bar from 0 would hide the differences."""

    dots: list[Dot]
    what: str
    singles: str = ""
    """What the rings are."""
    least: float = 0.0
    """The x axis spans at least this much."""
    chance: tuple[float, float] | None = None
    """Values that chance alone makes: shaded."""
    bars: str = ""
    """What the error bars of dots without rings are; default: the standard deviation."""

    def span(self) -> tuple[float, float] | None:
        """Returns the ends of an x axis of length `least` around all values; None where they span more."""
        values = [value for dot in self.dots for value in (dot.value, *dot.singles) if value - value == 0]
        if not values or not self.least > max(values) - min(values):
            return None
        middle = (max(values) + min(values)) / 2
        return middle - self.least / 2, middle + self.least / 2

    def table(self) -> Table:
        """Returns a row for each dot."""
        bars = f" (± {self.bars.removeprefix('± ')})" if self.bars else ""
        return Table(
            self.title, ["", self.what + bars], [[d.name, format_mean_std([d.value, d.std])] for d in self.dots]
        )

"""The parts of a report as data: numbers, tables, figures. They hold plain text; `page` alone knows HTML."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Number:
    """A headline number."""

    label: str
    """What it is; runs are compared by it."""
    value: str
    note: str = ""
    minor: bool = False
    """Shown where runs are compared, not at the head of a run."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    caption: str
    heads: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Key:
    """An entry of a figure's legend: a button that shows and hides traces."""

    name: str
    colour: str
    """Name of a colour of the page: `c1` to `c7`, `muted`, `ink`."""
    dash: str
    """solid, dash or dot."""
    traces: list[int]
    """Their places in the figure."""
    shown: bool = True


@dataclasses.dataclass(frozen=True)
class Figure:
    """An interactive figure for Plotly, in which colours are names of the page's (`@c1`, `@c1/0.2`)."""

    title: str
    alt: str
    """What a reader who does not see it should know."""
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    legend: list[Key]
    table: Table
    """The numbers that are drawn."""
    square: bool = False


@dataclasses.dataclass(frozen=True)
class Overlay:
    """A curve of a run that is drawn again beside those of other runs, on the chart of that name."""

    chart: str
    xaxis: str
    yaxis: str
    x: list[float]
    y: list[float | None]
    spread: list[float | None] | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What one results file gives."""

    title: str
    lead: str = ""
    """A sentence in front."""
    numbers: list[Number] = dataclasses.field(default_factory=list)
    blocks: list[Table | Figure] = dataclasses.field(default_factory=list)
    overlays: list[Overlay] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a reader must not miss: networks that diverged, a run that is not finished."""


def number(value: float | None) -> float:
    """A number of a JSON file, whose null stands for one that is not finite."""
    return float("nan") if value is None else float(value)


def format_text(value: float | None, digits: int = 4) -> str:
    """A number for a table: a dash where there is none, whole from a thousand on, powers of ten from ten million on."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1e3 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2e}"


def mean_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation of the finite ones; None for the spread of one, NaN where there is none."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return float("nan"), None
    return float(np.mean(finite)), float(np.std(finite, ddof=1)) if len(finite) > 1 else None


def spread(values: list[float], digits: int = 4) -> str:
    """`mean ± standard deviation` of the finite values."""
    mean, std = mean_std(values)
    return format_text(mean, digits) if std is None else f"{format_text(mean, digits)} ± {format_text(std, digits)}"

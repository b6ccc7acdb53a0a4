"""Mean and sample standard deviation, and how numbers are written: the only place that knows either."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


class MeanStd(NamedTuple):
    """A mean and its sample standard deviation; the latter is None of a single value."""

    mean: float
    std: float | None


def number(value: float | None) -> float:
    """Returns a number of a JSON file, whose null stands for one that is not finite."""
    return float("nan") if value is None else float(value)


def or_none(value: float) -> float | None:
    """Returns the value, or None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def mean_std(values: Iterable[Any]) -> MeanStd:
    """Computes mean and sample standard deviation of all values: NaN if any of them is, or if there are none."""
    array = np.array([number(value) for value in values], float)
    if not len(array):
        return MeanStd(float("nan"), None)
    return MeanStd(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)


def finite_mean_std(values: Iterable[Any]) -> MeanStd:
    """Computes mean and sample standard deviation of those values that are finite."""
    return mean_std(value for value in map(number, values) if np.isfinite(value))


def mean_std_columns(rows: Iterable[Iterable[Any]]) -> list[MeanStd]:
    """Computes them for every column of (N, X) rows, over the rows that are finite there."""
    return [finite_mean_std(column) for column in zip(*rows, strict=True)]


def standard_error(share: float, examples: int) -> float:
    """Computes the standard error of a share of `examples` independent examples."""
    return float(np.sqrt(max(share * (1 - share), 0.0) / examples)) if examples else float("nan")


def error_bars(stats: Iterable[Sequence[float | None]]) -> np.ndarray:
    """Returns (2, N) means and standard deviations for Matplotlib, 0 where there is no deviation."""
    return np.array([[number(mean), std or 0.0] for mean, std in stats], float).T


def format_number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    """Writes a number for a table: a dash where there is none, whole from a thousand on, powers of ten from ten million on."""
    if value is None or not np.isfinite(value):
        return "–"
    value = round(value, digits) + (0.0 if not sign else -0.0)  # no negative zero, but where the sign is of interest
    form = f".{digits}f" if abs(value) < 1e3 else ",.0f" if abs(value) < 1e7 else ".2e"
    return f"{value:{'+' if sign else ''}{form}}"


def format_mean_std(value: Sequence[float | None], digits: int = 4, sign: bool = False) -> str:
    """Writes a mean and its standard deviation, or the mean alone where there is none: `0.950 ± 0.002`.

    Args:
      value: [mean, standard deviation or None], as `mean_std` and results files have it.
      digits: after the point.
      sign: write the plus of a positive mean.
    """
    mean, std = value
    text = format_number(mean, digits, sign)
    return (
        text
        if mean is None or std is None or not np.isfinite([mean, std]).all()
        else f"{text} ± {format_number(std, digits)}"
    )


def format_spread(values: Iterable[Any], digits: int = 4) -> str:
    """Writes mean and standard deviation of the finite values."""
    return format_mean_std(finite_mean_std(values), digits)

"""What a result says of models that diverged: no example counts as correct for them, and that 0 is no accuracy to average or to show."""

from collections.abc import Iterable, Mapping
from typing import Any

from tna_jax.programs.reports.statistics import format_spread

DIVERGED = "diverged"
"""What stands in a table instead of a number."""


def is_finite(row: Mapping[str, Any], loss: str = "loss") -> bool:
    """Returns whether the loss of a row is finite; a row without one counts as finite."""
    return row.get(loss, 0.0) is not None


def format_finite(rows: Iterable[Mapping[str, Any]], name: str, loss: str = "loss") -> str:
    """Writes mean and standard deviation of a column over the rows whose loss is finite; `diverged` if there are rows, and none is."""
    rows = list(rows)
    finite = [row[name] for row in rows if is_finite(row, loss)]
    return DIVERGED if rows and not finite else format_spread(finite)

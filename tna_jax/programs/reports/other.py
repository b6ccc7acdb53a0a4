"""The description of a results file of a kind that no program describes: its numbers and its lists of rows, as tables."""

from typing import Any

from tna_jax.programs.reports.blocks import Description, Table
from tna_jax.programs.reports.statistics import format_number

AROUND = ("warnings", "provenance", "config", "run", "runs", "network", "format", "options")
"""What the report shows elsewhere."""
ROWS = 60


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes numbers and texts of the file as one table, and each list of flat objects as a table of its own."""
    single = [[name.replace("_", " "), _cell(value)] for name, value in result.items()
              if name not in AROUND and isinstance(value, int | float | str) and not isinstance(value, bool)]  # fmt: skip
    tables = [Table("numbers", ["", "value"], single)] if single else []
    for name, rows in result.items():
        if name in AROUND or not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            continue
        heads = [
            key for key in dict.fromkeys(k for row in rows for k in row) if any(_short(row.get(key)) for row in rows)
        ]
        cut = f" (the first {ROWS} of {len(rows)})" if len(rows) > ROWS else ""
        cells = [[_cell(row.get(key)) for key in heads] for row in rows[:ROWS]]
        tables.append(Table(name.replace("_", " ") + cut, [head.replace("_", " ") for head in heads], cells))
    return Description("Results", blocks=[*tables])


def _short(value: Any) -> bool:
    return value is not None and not isinstance(value, dict) and (not isinstance(value, list) or len(value) <= 4)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) if len(value) <= 4 else "…"
    return "–" if value is None or isinstance(value, dict) else str(value)

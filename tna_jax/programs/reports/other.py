"""A report's part on a results file of a kind that has no part of its own: its numbers and its lists of rows, as tables."""

from typing import Any

from tna_jax.programs.reports.blocks import Figure, Part, Table, format_text

AROUND = ("warnings", "provenance", "config", "run", "runs", "network", "format", "options")
"""What the report shows elsewhere."""
ROWS = 60


def part(result: dict[str, Any], split: str) -> Part:
    """Numbers and texts of the file as one table, and each list of flat objects as a table of its own."""
    single = [[name.replace("_", " "), _cell(value)] for name, value in result.items()
              if name not in AROUND and isinstance(value, int | float | str) and not isinstance(value, bool)]  # fmt: skip
    blocks: list[Table | Figure] = [Table("numbers", ["", "value"], single)] if single else []
    for name, value in result.items():
        if (
            name in AROUND
            or not isinstance(value, list)
            or not value
            or not all(isinstance(row, dict) for row in value)
        ):
            continue
        heads = [
            key for key in dict.fromkeys(k for row in value for k in row) if any(_short(row.get(key)) for row in value)
        ]
        rows = [[_cell(row.get(key)) for key in heads] for row in value[:ROWS]]
        left = f" (the first {ROWS} of {len(value)})" if len(value) > ROWS else ""
        blocks.append(Table(name.replace("_", " ") + left, [head.replace("_", " ") for head in heads], rows))
    return Part("Results", "", [], blocks)


def _short(value: Any) -> bool:
    return value is not None and not isinstance(value, dict) and (not isinstance(value, list) or len(value) <= 4)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return format_text(value)
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) if len(value) <= 4 else "…"
    return "–" if value is None or isinstance(value, dict) else str(value)

"""A description on the terminal: its tables and sentences. A table that is too wide is set as several, with its keys repeated."""

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.reports.blocks import Description, Table

PADDING = 2
"""Spaces between two columns of a table; rich adds one of them itself."""
FOLD = 20
"""Width of a column of names, where more columns find room if long names go over several lines."""


def show(description: Description) -> None:
    """Prints the heading, all tables, and the sentences below them."""
    console = wide_console()
    lines = [*description.remarks, *description.notes]
    if description.heading:
        console.print(description.heading, highlight=False)
    for table in description.tables:
        show_table(table, console)
    for line in lines:
        console.print(line, highlight=False)


def show_table(table: Table, console: Console | None = None) -> None:
    """Prints a table, in as many pieces as the width of the terminal asks for."""
    console = console or wide_console()
    widths = [max([*(cell_len(row[i]) for row in table.rows), *map(cell_len, head.split())], default=0) + PADDING
              for i, head in enumerate(table.heads)]  # fmt: skip
    cut = pieces(widths, table.keys, console.width)
    folded = [min(width, _folded(table, i) + PADDING) if i < table.keys else width for i, width in enumerate(widths)]
    if len(shorter := pieces(folded, table.keys, console.width)) < len(cut):
        widths, cut = folded, shorter
    for i, columns in enumerate(cut):
        caption = table.caption if columns[0] == 0 else f"{table.caption}, by {table.heads[0]}"
        console.print(_piece(table, columns, None if i else caption, widths))
        console.print()


def _folded(table: Table, column: int) -> int:
    """Returns the width at which names of rows are set in several lines."""
    return max([FOLD, *(cell_len(word) for row in table.rows for word in row[column].split())])


def pieces(widths: list[int], keys: int, room: int) -> list[list[int]]:
    """Returns the columns of each piece of a table: what names the rows, and as many others as there is room for.

    If all do not fit, the first of several keys stands above its rows instead of beside them.
    """
    columns = list(range(len(widths)))
    if sum(widths) <= room or len(widths) <= keys + 1:
        return [columns]
    names = columns[1 if keys > 1 else 0 : keys]
    found: list[list[int]] = [list(names)]
    for column in columns[keys:]:
        if len(found[-1]) > len(names) and sum(widths[i] for i in (*found[-1], column)) > room:
            found.append(list(names))
        found[-1].append(column)
    return found


def _piece(table: Table, columns: list[int], caption: str | None, widths: list[int]) -> RichTable:
    lines = RichTable(
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, PADDING - 1, 0, 0),
        show_edge=False,
        title=caption,
        title_justify="left",
    )
    for i in columns:
        is_text = i < table.keys and any(not row[i].replace(".", "").isdigit() for row in table.rows)
        lines.add_column(table.heads[i], justify="left" if is_text else "right", overflow="fold",
                         max_width=widths[i] - PADDING if i < table.keys else None)  # fmt: skip
    above, last = 0 not in columns, None
    for row in table.rows:
        if table.keys > 1 and row[0] != last:
            lines.add_section()
            if above:
                lines.add_row(row[0])
        last = row[0]
        lines.add_row(*(row[i] for i in columns))
    return lines

"""A description on the terminal: its tables and sentences."""

from rich.console import Console

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.reports import text_table
from tna_jax.programs.reports.blocks import Description, Table


def show(description: Description) -> None:
    """Prints the heading, all tables, and the sentences below them."""
    console = wide_console()
    if description.heading:
        console.print(description.heading, highlight=False)
    for table in description.tables:
        show_table(table, console)
    for line in (*description.remarks, *description.notes):
        console.print(line, highlight=False)


def show_table(table: Table, console: Console | None = None) -> None:
    """Prints a table, in as many pieces as the width of the terminal asks for."""
    console = console or wide_console()
    for line in text_table.lines(table, console):
        console.print(line)

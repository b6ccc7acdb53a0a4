"""What a program does with its result at the end: the figures into a PNG, tables and sentences onto the terminal."""

from pathlib import Path

from tna_jax.programs.reports import png, terminal
from tna_jax.programs.reports.blocks import Description


def present(description: Description, file: Path | None = None) -> None:
    """Draws the figures of a description into `file`, if there is one, and prints the rest."""
    if file is not None:
        png.draw(description, file)
    terminal.show(description)

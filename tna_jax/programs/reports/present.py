"""What a program does with its result at the end: the figures into a PNG, tables and sentences onto the terminal."""

from pathlib import Path

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.messages import shell_words
from tna_jax.programs.reports import png, terminal
from tna_jax.programs.reports.blocks import Description


def present(description: Description, file: Path | None = None) -> None:
    """Draws the figures of a description into `file`, if there is one, and prints the rest, whether they can be written or not.

    Raises:
      UsageError: they cannot.
    """
    try:
        if file is not None:
            png.draw(description, file)
    except UsageError as error:
        results = file.parent if file is not None else ""
        raise UsageError(
            f"{error}; the results are whole without it: {shell_words('tna', 'report', str(results))} draws them too"
        ) from error
    finally:
        terminal.show(description)

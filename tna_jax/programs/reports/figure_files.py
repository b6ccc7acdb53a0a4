"""Every figure of a report as files: SVG for papers, and its data as CSV."""

from pathlib import Path

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_atomic
from tna_jax.programs.reports import png
from tna_jax.programs.reports.blocks import Description
from tna_jax.programs.reports.figure_data import as_csv, file_name
from tna_jax.programs.reports.kinds import Story


def write(stories: list[Story], folder: Path) -> int:
    """Writes `TITLE.svg` and `TITLE.csv` of every figure, of several runs into a folder each; returns the number of figures.

    Raises:
      UsageError: the folder cannot be made.
    """
    count, taken = 0, set()
    for story in stories:
        place = folder / file_name(story.name) if len(stories) > 1 else folder
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--figures {folder}: {error.strerror}") from error
        for figure in (figure for part in story.parts for figure in part.figures):
            name, number = file_name(figure.title), 2
            while place / name in taken:
                name, number = f"{file_name(figure.title)}-{number}", number + 1
            taken.add(place / name)
            png.draw(Description("", blocks=[figure]), place / f"{name}.svg")
            write_atomic(place / f"{name}.csv", as_csv(figure).encode())
            count += 1
    return count

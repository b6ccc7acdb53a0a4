"""`tna runs DIR`: the runs in a folder, how far each is, in what they differ, and what came out."""

import os
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json
from tna_jax.programs.cli.messages import is_quiet, shell_words
from tna_jax.programs.cli.progress import plural, wide_console
from tna_jax.programs.list_runs.options import RunsOptions
from tna_jax.programs.reports.run_status import describe
from tna_jax.programs.runs.folder import CONFIG


def run(settings: RunsOptions) -> list[dict[str, Any]]:
    """Prints the table and returns its rows."""
    top = Path(settings.folder)
    if not top.is_dir():
        raise UsageError(f"{top} is not a folder")
    folders = [Path(path) for path, _, files in os.walk(top) if CONFIG in files and _is_run(Path(path))]
    if not folders:
        raise UsageError(f"there is no run in {top} (no folder with a {CONFIG})")
    rows = [describe(folder) for folder in sorted(folders)]
    show(rows, top)
    if not is_quiet() and (command := _next(rows)):
        print(f"next: {shell_words(*command)}")
    return rows


WORDS = 28
"""Columns that a text of several words needs beside others."""


def show(rows: list[dict[str, Any]], top: Path) -> None:
    """Prints the runs as a table, or, where words would be broken in it, one below the other."""
    console = wide_console()
    title, heads = f"{plural(len(rows), 'run')} in {top}", ("run", "program", "state", "differs in", "result")
    cells = [
        (str(row["folder"].relative_to(top)), row["program"], row["state"], options, row["result"])
        for row, options in zip(rows, differences(rows), strict=True)
    ]
    natural = [max(cell_len(text) for text in column) for column in zip(heads, *cells, strict=True)]
    needed = [natural[0], natural[1], *(min(width, WORDS) for width in natural[2:])]
    if sum(needed) + 3 * len(heads) + 1 > console.width:
        console.print(title)
        for name, program, *texts in cells:
            console.print(f"\n{name} ({program})", highlight=False)
            for text in filter(None, texts):
                console.print(Padding(Text(text), (0, 0, 0, 2), expand=False))
        return
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _next(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Returns the command that resumes an interrupted run, or shows a finished one."""
    trained = [row for row in rows if row["program"] != "import"]  # imported models have neither to do nor to show
    for state, program in (("interrupted", "resume"), ("finished", "report")):
        for row in trained:
            if row["state"].startswith(state):
                return "tna", program, str(row["folder"])
    return ()


def _is_run(folder: Path) -> bool:
    """Whether a folder with a config.json is a run: model folders of Hugging Face have one too. A damaged one is listed as what it is."""
    try:
        config = read_json(folder / CONFIG)
    except UsageError:
        return True
    return (
        not isinstance(config, dict)
        or "program" in config
        or not {"model_type", "architectures", "_class_name"} & set(config)
    )


def differences(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the options of each run in which the runs of its program differ, as far as it has them."""
    programs = {row["program"] for row in rows}
    names = {program: _differing([row["config"] for row in rows if row["program"] == program]) for program in programs}
    options = [{name: row["config"].get(name) for name in names[row["program"]]} for row in rows]
    return [", ".join(f"{name}={value}" for name, value in values.items() if value is not None) for values in options]


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """Returns the options that differ among the runs of a program, but those without a configuration."""
    known = [config for config in configs if config]
    names = dict.fromkeys(name for config in known for name in config)
    return [name for name in names if any(config.get(name) != known[0].get(name) for config in known)]

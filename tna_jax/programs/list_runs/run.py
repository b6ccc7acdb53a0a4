"""`tna runs DIR`: the runs in a folder, how far each is, in what they differ, and what came out."""

import os
from pathlib import Path
from typing import Any

from rich.table import Table

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json
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
    table = Table(title=f"{plural(len(rows), 'run')} in {top}", title_justify="left")
    for column in ("run", "program", "state", "differs in", "result"):
        table.add_column(column, overflow="fold")
    for row, options in zip(rows, differences(rows), strict=True):
        table.add_row(str(row["folder"].relative_to(top)), row["program"], row["state"], options, row["result"])
    wide_console().print(table)
    return rows


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

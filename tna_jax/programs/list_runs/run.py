"""`tna runs DIR`: the runs in a folder, how far each is, in what they differ, and what came out."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from tna_jax.io.errors import UsageError
from tna_jax.io.restore import listed
from tna_jax.programs.cli.launch import launch
from tna_jax.programs.cli.parsing import ABOUT
from tna_jax.programs.cli.progress import plural, wide_console
from tna_jax.programs.runs.folder import CONFIG, PLAN, Run
from tna_jax.programs.runs.lock import held

RESULTS = {"lmc": "lmc.json", "train": "train.json", "import": PLAN, "pretrain": "pretrain.json", "soup": "soup.json",
           "cold": "cold.json", "federate": "federate.json"}  # fmt: skip
"""The file that says that a run of a program is finished."""


@dataclasses.dataclass(frozen=True)
class RunsOptions:
    """Options of `tna runs`."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = "runs"
    """Folder that holds run folders, at any depth."""


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("runs", RunsOptions, run, arguments, __doc__)


def run(settings: RunsOptions) -> list[dict[str, Any]]:
    """Prints the table and returns its rows."""
    top = Path(settings.folder)
    if not top.is_dir():
        raise UsageError(f"{top} is not a folder")
    found = [Path(path) for path, _, files in os.walk(top) if CONFIG in files]
    if not found:
        raise UsageError(f"there is no run in {top} (no folder with a {CONFIG})")
    rows = [describe(folder) for folder in sorted(found)]
    table = Table(title=f"{plural(len(rows), 'run')} in {top}", title_justify="left")
    for column in ("run", "program", "state", "differs in", "result"):
        table.add_column(column, overflow="fold")
    for row, options in zip(rows, differences(rows), strict=True):
        table.add_row(str(row["folder"].relative_to(top)), row["program"], row["state"], options, row["result"])
    wide_console().print(table)
    return rows


def differences(rows: list[dict[str, Any]]) -> list[str]:
    """The options of each run in which the runs of its program differ, as far as it has them."""
    programs = {row["program"] for row in rows}
    names = {program: _differing([row["config"] for row in rows if row["program"] == program]) for program in programs}
    told = [{name: row["config"].get(name) for name in names[row["program"]]} for row in rows]
    return [", ".join(f"{name}={value}" for name, value in one.items() if value is not None) for one in told]


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """The options that not all runs of a program which have any have alike."""
    known = [config for config in configs if config]
    names = dict.fromkeys(name for config in known for name in config)
    return [name for name in names if any(config.get(name) != known[0].get(name) for config in known)]


def describe(folder: Path) -> dict[str, Any]:
    """A run in words: program, state, configuration, headline; what cannot be read is said in its state."""
    opened = Run(folder)
    row: dict[str, Any] = {"folder": folder, "program": "?", "config": {}, "state": "", "result": ""}
    try:
        config = opened.read(CONFIG)
        row["program"] = str(config.get("program", "lmc" if opened.has("lmc.json") else "train"))
        row["config"] = {name: value for name, value in config.items() if name not in ABOUT}
        done = RESULTS.get(row["program"], "")
        if held(folder):
            row["state"] = f"running, {progress(opened, config)}"
        elif done and opened.has(done):
            row["state"] = "finished"
            row["result"] = headline(opened.read(done))
        else:
            row["state"] = f"interrupted, {progress(opened, config)}"
    except UsageError as error:
        row["state"] = f"unreadable: {error}"
    return row


def progress(run: Run, config: dict[str, Any]) -> str:
    """How far the newest checkpoint is: `epoch 3 of 20`."""
    federated = config.get("program") == "federate"
    epochs = config.get("rounds" if federated else "epochs")
    if not run.has(PLAN) or type(epochs) is not int:
        return "nothing saved yet"
    models, wave = run.plan()
    if federated:
        done = (listed(run.checkpoints) or [0])[0]
        return (
            f"round {done} of {epochs * len(models)} in {plural(len(models), 'run')}" if done else "nothing saved yet"
        )
    waves = -(-len(models) // wave)
    steps = listed(run.checkpoints)
    if not steps:
        return "nothing saved yet"
    return f"epoch {steps[0]} of {epochs * waves}{f' in {waves} waves' if waves > 1 else ''}"


def headline(result: dict[str, Any]) -> str:
    """The numbers that matter most, means over the test set: barriers by ratio, accuracy by mask schedule, or the models' accuracy."""
    try:
        if isinstance(result.get("headline"), str):
            return result["headline"]
        if "rows" in result:
            rows = [row for row in result["rows"] if row["split"] == "test"]
            parts = []
            for ratio in sorted({row["ratio"] for row in rows}):
                values = [row["accuracy_barrier"] for row in rows if row["ratio"] == ratio and row["method"] == "tna"]
                finite = [value for value in values if value is not None]
                parts += [f"{np.mean(finite):.4f} at ratio {ratio:g}"] if finite else []
            return f"accuracy barrier {', '.join(parts)}"
        if "runs" in result:
            scores: dict[str, list[float]] = {}
            for one in result["runs"]:
                scores.setdefault(one["anchors"], []).append(one["score"])
            return "accuracy " + ", ".join(f"{np.mean(found):.4f} {kind}" for kind, found in scores.items())
        if "models" in result and "at_once" not in result:
            values = [model["test_accuracy"] for model in result["models"] if model["test_accuracy"] is not None]
            return (
                f"test accuracy {np.mean(values):.4f} of {plural(len(values), 'model')}"
                if values
                else "all models diverged"
            )
        return f"{len(result['models'])} imported"
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"its results are not as this version writes them ({type(error).__name__}: {error})"
        ) from error

"""Cells: an experiment is made of runs of `tna lmc`, each one program over its ratios and seeds, in a folder of its own.

A finished cell is read, not computed again; an interrupted one goes on where it stopped. The folders stand under
`runs/experiments/`, so that the results of an experiment can be thrown away and drawn again in seconds.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.progress import console
from tna_jax.programs.federate import run as federate
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.setup import resolved
from tna_jax.programs.lmc import run as lmc
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.report import finite, pairs_mean_std
from tna_jax.programs.reports.statistics import format_mean_std
from tna_jax.programs.runs.folder import CONFIG
from tna_jax.programs.train import run as train
from tna_jax.programs.train.options import TrainOptions
from tna_jax.programs.training.setup import result_options

RUNS = Path("runs") / "experiments"
COLUMNS = ("method", "init", "ratio", "seed", "accuracy_ends", "accuracy_midpoint", "accuracy_barrier", "loss_barrier")
"""Of a row of `lmc.json`, what an experiment's results keep."""
MEASURES = ("accuracy_ends", "accuracy_midpoint", "accuracy_barrier", "loss_barrier")
KEYS = ("init", "method", "ratio")


def cell(experiment: str, name: str, settings: LmcOptions) -> dict[str, Any]:
    """The result of one run, computed now if it is not there.

    Args:
      experiment, name: of the folder.
      settings: the run; its `out`, `overwrite` and `resume` are set here.

    Returns:
      `config`, `network`, `provenance`, `diverged` as in `lmc.json`; `rows` of the test set with `COLUMNS`; `summary`, see `summary`.
    """
    folder = RUNS / experiment / name
    wanted = to_json(result_options(settings))
    console.print(f"{experiment}: {name}", style="bold")
    result = _read(folder / "lmc.json")
    if result is None or not _same(result["config"], wanted, LmcOptions()):
        begun = _same(_read(folder / CONFIG), wanted, LmcOptions())
        result = lmc.run(dataclasses.replace(settings, out=str(folder), resume=begun, overwrite=not begun))
    rows = [row for row in result["rows"] if row["split"] == "test"]
    kept = [{key: row[key] for key in COLUMNS} for row in rows]
    facts = {key: result[key] for key in ("config", "network", "provenance", "diverged")}
    contents: dict[str, Any] = to_json({**facts, "summary": summary(rows), "rows": kept})
    return contents


def populated(experiment: str, name: str, options: dict[str, Any]) -> Path:
    """The folder of a finished `tna train` run with these options; trained now if it is not there.

    Args:
      options: fields of `TrainOptions`.
    """
    folder = RUNS / experiment / name
    settings = TrainOptions(**options)
    wanted, defaults = to_json(result_options(settings)), TrainOptions()
    console.print(f"{experiment}: {name}", style="bold")
    if not _same(_read(folder / train.RESULT, "config"), wanted, defaults):
        begun = _same(_read(folder / CONFIG), wanted, defaults)
        train.run(dataclasses.replace(settings, out=str(folder), resume=begun, overwrite=not begun))
    return folder


def finished(experiment: str, name: str, program: Any, settings: Any) -> dict[str, Any]:
    """The result of a run of `tna pretrain`, `tna soup` or `tna cold`, computed now if it is not there.

    Args:
      program: the module, whose `run` and first of `RESULTS` are used.
      settings: its options; their `out`, `overwrite` and `resume` are set here.
    """
    folder = RUNS / experiment / name
    wanted, defaults = to_json(result_options(settings)), type(settings)()
    console.print(f"{experiment}: {name}", style="bold")
    result: dict[str, Any] | None = _read(folder / program.RESULTS[0])
    if result is None or not _same(result["config"], wanted, defaults):
        begun = _same(_read(folder / CONFIG), wanted, defaults)
        computed: dict[str, Any] = program.run(
            dataclasses.replace(settings, out=str(folder), resume=begun, overwrite=not begun)
        )
        return computed
    return result


def federated(experiment: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The result of a run of `tna federate` with these options, computed now if it is not there.

    Args:
      options: fields of `FederateOptions`.

    Returns:
      `config`, `network`, `parameters` as in `federate.json`; of each run its seed, mask schedule, score (mean accuracy of the
      last rounds) and accuracy by round, rounded to five decimals.
    """
    folder = RUNS / experiment / name
    settings = resolved(FederateOptions(**options))
    wanted, defaults = to_json(result_options(settings)), FederateOptions()
    console.print(f"{experiment}: {name}", style="bold")
    result = _read(folder / federate.RESULTS[0])
    if result is None or not _same(result["config"], wanted, defaults):
        begun = _same(_read(folder / CONFIG), wanted, defaults)
        result = federate.run(dataclasses.replace(settings, out=str(folder), resume=begun, overwrite=not begun))
    runs = [
        {**{key: run[key] for key in ("seed", "anchors", "score")},
         "accuracy": [None if value is None else round(value, 5) for value in run["accuracy"]]}
        for run in result["runs"]
    ]  # fmt: skip
    contents: dict[str, Any] = to_json(
        {**{key: result[key] for key in ("config", "network", "parameters")}, "runs": runs}
    )
    return contents


def summary(rows: list[dict[str, Any]], keys: Iterable[str] = KEYS) -> list[dict[str, Any]]:
    """Rows grouped by `keys`: n pairs, and for each measure mean and sample standard deviation over pairs.

    Pairs with a model that diverged are left out of the means and counted in `diverged`.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    made = []
    for values, group in groups.items():
        good = [row for row in group if finite(row)]
        facts = {**dict(zip(keys, values, strict=True)), "n": len(good), "diverged": len(group) - len(good)}
        for measure in MEASURES if good else ():
            facts[measure] = list(pairs_mean_std(good, measure))
        made.append(facts)
    lines: list[dict[str, Any]] = to_json(made)
    return lines


def find(result: dict[str, Any], **wanted: Any) -> dict[str, Any] | None:
    """The line of a cell's summary with the values of `wanted`; `None` if there is none or no pair of it survived."""
    lines = [line for line in result["summary"] if all(line[key] == value for key, value in wanted.items())]
    return lines[0] if lines and lines[0]["n"] else None


def measured(line: dict[str, Any] | None, measure: str) -> str:
    """A measure of a line of a summary for a table; a line without a pair that survived says so."""
    return format_mean_std(line[measure], 3) if line and line["n"] else "diverged"


def _same(config: dict[str, Any] | None, wanted: dict[str, Any], defaults: Any) -> bool:
    """Whether a run was made with these options; options that came later had their default."""
    if config is None:
        return False
    return all(config.get(key, default) == wanted[key] for key, default in to_json(result_options(defaults)).items())


def _read(file: Path, part: str | None = None) -> Any:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if part is None else found.get(part)

"""Which results there are, and what of a run folder a report shows. A new kind of result is a word of KINDS.

Each kind is described by its own program: `describe(contents of the file, split)` in its `report`, which is imported by name, since
no room imports a program. A file of no kind is shown by its `rounds`, if it has any (see `rounds`), else as tables (see `other`).
"""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import check_format
from tna_jax.io.json_files import read_json
from tna_jax.io.restore import listed
from tna_jax.io.run_folder import cure_of
from tna_jax.programs.cli.catalog import PROGRAMS
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import logs, measures, other, rounds, run_status
from tna_jax.programs.reports.blocks import Description
from tna_jax.programs.reports.wording import network_name
from tna_jax.programs.runs.folder import CHECKPOINTS, CONFIG, METRICS, PLAN, PROVENANCE, Run

KINDS = ("lmc", "train", "barrier", "landscape", "fuse", "rebasin", "merge", "pretrain", "soup", "cold", "federate")
"""Programs that describe their results, by the name of the results file (`lmc.json`), in the order of the page."""


@dataclasses.dataclass(frozen=True)
class Story:
    """A run, as a report tells it."""

    name: str
    state: str
    config: dict[str, Any]
    """The options that shaped the result; with `program` where it is known."""
    provenance: dict[str, Any]
    network: str
    parts: list[Description]


def read(name: str, split: str) -> Story:
    """Reads a run folder, a folder with a report of `tna merge`, or one results file.

    Raises:
      UsageError: there is nothing to show, or a file that is not as this version writes it.
    """
    path = Path(name)
    if path.is_file():
        return _file(path, split)
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {path}")
    files = [file for file in sorted(path.glob("*.json"), key=_order) if file.name not in (CONFIG, PROVENANCE, PLAN)]
    contents = {file: _load(file) for file in files}
    contents = {file: value for file, value in contents.items() if isinstance(value, dict) and "provenance" in value}
    logged = logs.lines(path / METRICS)
    if not contents and not logged:
        what = "has logged nothing yet" if (path / CONFIG).is_file() else "is not a run folder"
        raise UsageError(
            f"{path} {what}: it has neither results of tna (lmc.json, train.json, ...) nor a {METRICS} with a line"
        )
    newest = max(listed(path / CHECKPOINTS), default=0)
    parts = [describe(file, value, split, newest) for file, value in contents.items()]
    if logged and all(isinstance(line.get("round"), int) for line in logged):
        parts += [] if contents else [rounds.describe({"rounds": logged}, split)]
    elif any(name in line for line in logged for name in logs.MEASURES):
        measured = next(
            (measures.of_result(value) for value in contents.values() if "metrics" in value), measures.CLASSIFICATION
        )
        parts.append(logs.describe(logged, bool(contents), measured))
    results = list(contents.values())
    state, config, provenance = "", _config(results), results[0]["provenance"] if results else {}
    if (path / CONFIG).is_file():
        run = Run.open(name)
        config = run.read(CONFIG)
        finished = path / f"{config.get('program')}.json" in contents
        state = "finished" if finished else run_status.describe(path)["state"]
        provenance = {**(run.read(PROVENANCE) if run.has(PROVENANCE) else {}), **provenance}
    network = next((str(result["network"]) for result in results if "network" in result), "")
    return Story(path.resolve().name, state, config, provenance, network, parts)


def describe(path: Path, contents: dict[str, Any], split: str, newest: int = 0) -> Description:
    """Describes the contents of a results file, with what speaks against them.

    Args:
      path: the file, whose name says of what kind it is.
      contents: what it holds.
      split: the data that numbers and curves are of, `test` or `train`.
      newest: the newest checkpoint of the run.

    Raises:
      UsageError: it is not as this version writes it.
    """
    rows = contents.get("rounds")
    has_rounds = isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) and isinstance(row.get("round"), int) for row in rows)  # fmt: skip
    module = describer(kind(path)) if kind(path) else rounds if has_rounds else other
    try:
        part: Description = module.describe(contents, split)
        old = [sentence] if (sentence := checkpoint_status.stale(contents, newest)) else []
        return dataclasses.replace(part, notes=[*part.notes, *map(str, contents.get("warnings", [])), *old])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(f"{path} is not as this version writes it ({type(error).__name__}: {error})") from error


def describer(program: str) -> Any:
    """Returns the module that describes the results of a program."""
    return importlib.import_module(f"tna_jax.programs.{program}.report")


def kind(path: Path) -> str:
    """Returns the kind of a results file by its name: `lmc.json`, `digits_lmc.json` and `x.merge.json` all end in theirs."""
    return next((name for name in KINDS if path.stem == name or path.stem.endswith((f"_{name}", f".{name}"))), "")


def _file(path: Path, split: str) -> Story:
    value = _load(path)
    if not isinstance(value, dict) or not isinstance(value.get("provenance"), dict):
        raise UsageError(f"{path} is not a results file of tna (it has no provenance); name a run folder")
    program = {"program": kind(path)} if "config" in value and kind(path) in PROGRAMS else {}
    config, part = {**program, **_config([value])}, describe(path, value, split)
    return Story(path.stem, "", config, value["provenance"], network_name({**value, "config": config}), [part])


def _load(path: Path) -> Any:
    try:
        value = read_json(path)
    except UsageError as error:
        raise UsageError(f"{error}; {cure_of(path)}") from error
    if isinstance(value, dict):
        check_format(value.get("provenance", value) if isinstance(value.get("provenance"), dict) else value, str(path))
    return value


def _config(results: list[dict[str, Any]]) -> dict[str, Any]:
    return next((r[key] for r in results for key in ("config", "run") if isinstance(r.get(key), dict)), {})


def _order(path: Path) -> tuple[int, str]:
    return ([*KINDS, ""].index(kind(path)), path.name)

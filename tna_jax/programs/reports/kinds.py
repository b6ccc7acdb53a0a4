"""Which results there are, and what of a run folder a report shows. A new kind of result is a line of KINDS.

A part is a function of the contents of a results file and a split ("test" or "train"); a file that has no line here is shown by
its `rounds`, if it has any (see `rounds`), else as tables (see `other`).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json
from tna_jax.io.manifest import check_format
from tna_jax.io.restore import listed
from tna_jax.programs.cli.main import PROGRAMS
from tna_jax.programs.list_runs import run as runs
from tna_jax.programs.lmc import report as lmc_report
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import fusing, lmc, other, pairs, planes, rounds, training, tuning
from tna_jax.programs.reports.blocks import Part
from tna_jax.programs.runs.folder import CHECKPOINTS, CONFIG, METRICS, PLAN, PROVENANCE, Run

KINDS: dict[str, Callable[[dict[str, Any], str], Part]] = {
    "lmc": lmc.part,
    "train": training.models,
    "barrier": pairs.barrier,
    "landscape": planes.part,
    "fuse": fusing.fuse,
    "rebasin": pairs.rebasin,
    "merge": fusing.merge,
    "soup": tuning.soup,
    "cold": tuning.cold,
    "federate": rounds.federate,
}
"""The part of a report by the name of the results file (`lmc.json`), in the order of the page."""


@dataclasses.dataclass(frozen=True)
class Story:
    """A run, as a report tells it."""

    name: str
    state: str
    config: dict[str, Any]
    """The options that shaped the result; with `program` where it is known."""
    provenance: dict[str, Any]
    network: str
    parts: list[Part]


def read(name: str, split: str) -> Story:
    """A run folder, a folder with a report of `tna merge`, or one results file.

    Raises:
      UsageError: there is nothing to show, or a file that is not as this version writes it.
    """
    path = Path(name)
    if path.is_file():
        return _file(path, split)
    if not path.is_dir():
        raise UsageError(f"there is no file or folder {path}")
    files = [file for file in sorted(path.glob("*.json"), key=_order) if file.name not in (CONFIG, PROVENANCE, PLAN)]
    found = {file: _load(file) for file in files}
    found = {file: value for file, value in found.items() if isinstance(value, dict) and "provenance" in value}
    logged = training.lines(path / METRICS)
    if not found and not logged:
        what = "has logged nothing yet" if (path / CONFIG).is_file() else "is not a run folder"
        raise UsageError(
            f"{path} {what}: it has neither results of tna (lmc.json, train.json, ...) nor a {METRICS} with a line"
        )
    newest = max(listed(path / CHECKPOINTS), default=0)
    parts = [_part(file, value, split, newest) for file, value in found.items()]
    if logged and all(isinstance(line.get("round"), int) for line in logged):
        parts += [] if found else [rounds.part({"rounds": logged}, split)]
    elif any(name in line for line in logged for name in training.MEASURES):
        parts.append(training.part(logged, bool(found)))
    results = list(found.values())
    state, config, provenance = "", _config(results), results[0]["provenance"] if results else {}
    if (path / CONFIG).is_file():
        run = Run.open(name)
        config = run.read(CONFIG)
        state = "finished" if (path / f"{config.get('program')}.json") in found else runs.describe(path)["state"]
        provenance = {**(run.read(PROVENANCE) if run.has(PROVENANCE) else {}), **provenance}
    network = next((str(result["network"]) for result in results if "network" in result), "")
    return Story(path.resolve().name, state, config, provenance, network, parts)


def _file(path: Path, split: str) -> Story:
    value = _load(path)
    if not isinstance(value, dict) or not isinstance(value.get("provenance"), dict):
        raise UsageError(f"{path} is not a results file of tna (it has no provenance); name a run folder")
    config = _config([value])
    program = {"program": kind(path)} if "config" in value and kind(path) in PROGRAMS else {}
    network = str(value.get("network", "")) or lmc_report.named({"config": config}) if "model" in config else ""
    return Story(path.stem, "", {**program, **config}, value["provenance"], network, [_part(path, value, split)])


def _load(path: Path) -> Any:
    value = read_json(path)
    if isinstance(value, dict):
        check_format(value.get("provenance", value) if isinstance(value.get("provenance"), dict) else value, str(path))
    return value


def _config(results: list[dict[str, Any]]) -> dict[str, Any]:
    return next((r[key] for r in results for key in ("config", "run") if isinstance(r.get(key), dict)), {})


def kind(path: Path) -> str:
    """The kind of a results file by its name: `lmc.json`, `digits_lmc.json` and `x.merge.json` all end in theirs."""
    return next((name for name in KINDS if path.stem == name or path.stem.endswith((f"_{name}", f".{name}"))), "")


def _order(path: Path) -> tuple[int, str]:
    found = kind(path)
    return (list(KINDS).index(found) if found else len(KINDS), path.name)


def _part(path: Path, value: dict[str, Any], split: str, newest: int = 0) -> Part:
    rows = value.get("rounds")
    told = (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(r, dict) and isinstance(r.get("round"), int) for r in rows)
    )
    make = KINDS.get(kind(path), rounds.part if told else other.part)
    try:
        part = make(value, split)
        old = [sentence] if (sentence := checkpoint_status.stale(value, newest)) else []
        return dataclasses.replace(part, notes=[*part.notes, *map(str, value.get("warnings", [])), *old])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UsageError(f"{path} is not as this version writes it ({type(error).__name__}: {error})") from error

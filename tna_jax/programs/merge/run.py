"""`tna merge A B ... -o OUT`: averages safetensors checkpoints of any family, streamed: uniform, weighted, or a greedy soup."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tna_jax.averaging import GreedySoup, greedy_recipe
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.io.tensor_headers import Checkpoint, open_checkpoint
from tna_jax.programs.cli.progress import Interrupted, console, room_for_bar, size
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import report as merge_report
from tna_jax.programs.merge import streaming, validate, verify_anchors
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.score_command import evaluate
from tna_jax.programs.merge.streaming import Counts
from tna_jax.programs.reports.present import present
from tna_jax.programs.training.backbone import ABOUT as PRETRAINING

WIDE: dict[str, np.dtype] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
REPORT = "merge.json"
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
"""Endings of files that hold weights: of a folder's other files (config, tokenizer) the merged folder gets a copy."""


def run(settings: MergeOptions) -> dict[str, Any]:
    """Merges the files and writes a report beside them; returns what the report holds."""
    settings.check()
    out = Path(settings.out)
    checkpoints = open_alike(settings.models)
    report = out.with_suffix(".merge.json") if settings.single else out / REPORT
    written = [*_files(checkpoints[0], out), report]
    written += [out / file.name for file in merge_metadata.others(checkpoints[0], WEIGHT_FILES, REPORT)]
    merge_metadata.require_apart([*written, *([_candidate(settings)] if settings.evaluate else [])], checkpoints)
    anchors = verify_anchors.verify(checkpoints)
    warnings = validate.warn(checkpoints)
    _can_write(out, checkpoints[0].bytes, settings.single)
    console.print(
        f"{len(checkpoints)} models of {len(checkpoints[0].tensors)} tensors, {size(checkpoints[0].bytes)}; "
        f"sums in {settings.accumulate}"
    )
    start, recipe = time.perf_counter(), None
    try:
        weights = np.array(settings.weights or [1] * len(checkpoints), np.float64)
        if settings.evaluate is not None:
            recipe = _greedy(settings, checkpoints)
            weights = recipe.weights.astype(np.float64)
        counts = merge(checkpoints, weights, out, WIDE[settings.accumulate], anchors is not None)
    except KeyboardInterrupt:
        raise Interrupted from None
    warnings += validate.warn_of_values(checkpoints, weights, counts.not_finite)
    if counts.differing_integers:
        names = ", ".join(counts.differing_integers)
        console.print(f"not floating-point and different, so {checkpoints[0].path}'s were taken: {names}")
    result: dict[str, Any] = {
        "provenance": provenance([]),
        "models": settings.models,
        "weights": weights / weights.sum(),
        "accumulate": settings.accumulate,
        "tensors": len(checkpoints[0].tensors),
        "entries": counts.entries,
        "entries_equal_in_all": counts.equal,
        "anchors_verified": anchors,
        "warnings": warnings,
        "taken_from_the_first": counts.differing_integers,
        "seconds": time.perf_counter() - start,
        **({} if recipe is None else {"evaluate": settings.evaluate, "ties": settings.ties, "score": recipe.score,
           "trail": [step._asdict() for step in recipe.trail]}),
    }  # fmt: skip
    write_json(report, result)
    written_result: dict[str, Any] = to_json(result)
    present(merge_report.describe(written_result))
    print(f"wrote {out} and {report}")
    return written_result


def open_alike(names: tuple[str, ...]) -> list[Checkpoint]:
    """Reads the headers of the models; raises UsageError that names each that cannot be merged, and how they differ."""
    checkpoints, wrong = [], []
    for name in dict.fromkeys(names):
        try:
            checkpoints.append(open_checkpoint(name))
            if not checkpoints[-1].tensors:
                wrong.append(f"{name} holds no tensors")
        except UsageError as error:
            wrong.append(str(error))
    if wrong:
        raise UsageError("; ".join(wrong))
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UsageError(f"named more than once: {', '.join(twice)}; name each model once (--weights weights them)")
    merge_metadata.require_different(checkpoints)
    validate.require_alike(checkpoints)
    return checkpoints


def _files(first: Checkpoint, out: Path) -> dict[Path, list[str]]:
    """Returns the names of the tensors in each file that is written."""
    if out.suffix == ".safetensors":
        return {out: list(first.tensors)}
    return {out / name: held for name, held in first.files.items()}


def merge(
    checkpoints: list[Checkpoint], weights: np.ndarray, out: Path, wide: np.dtype, verified: bool = False
) -> Counts:
    """Writes the average: one file if `out` ends in .safetensors, else a folder with the first model's shards and other files.

    Args:
      checkpoints: of equal tensors; weights: (M,) float64, sum not 0; wide: dtype of the sums.
      verified: whether all have the anchors that their common recipe names: then the metadata says so of the average.
    """
    first, counts = checkpoints[0], Counts()
    single = out.suffix == ".safetensors"
    bar = Progress(
        TextColumn("merging"), *room_for_bar(55), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=first.bytes)
        if not single:
            out.mkdir(parents=True, exist_ok=True)
        for file, names in _files(first, out).items():
            source = next(iter(first.metadata)) if single else file.name
            metadata = merge_metadata.metadata(checkpoints, source, weights, verified)
            streaming.write(
                file, checkpoints, names, weights, metadata, counts, wide=wide,
                advance=lambda bytes: bar.advance(task, bytes),
            )  # fmt: skip
    if not single:
        for file in merge_metadata.others(first, WEIGHT_FILES, REPORT):
            shutil.copyfile(file, out / file.name)
        record = merge_metadata.pretraining(checkpoints, weights)
        if record is not None:
            write_json(out / PRETRAINING, record)
    return counts


def _can_write(out: Path, bytes: int, single: bool) -> None:
    try:
        folder = out.parent if single else out
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {error.strerror or error}") from error
    if free < bytes:
        raise UsageError(f"--out {out} needs {size(bytes)}, but {size(free)} are free there")


def _candidate(settings: MergeOptions) -> Path:
    """Returns where the candidates of a greedy soup are written."""
    out = Path(settings.out)
    return out.with_name(f".{out.stem}.candidate" + (".safetensors" if settings.single else ""))


def _greedy(settings: MergeOptions, checkpoints: list[Checkpoint]) -> GreedySoup:
    """Searches the greedy soup of the models; its candidates are written beside --out, one at a time."""
    assert settings.evaluate is not None
    candidate = _candidate(settings)
    tried = 0

    def score(path: Path) -> float:
        value = evaluate(settings.evaluate or "", path)
        console.print(f"score {value:.6g}: {path if path != candidate else f'soup {tried}'}")
        return value

    def soup(weights: np.ndarray) -> float:
        nonlocal tried
        tried += 1
        merge(checkpoints, weights.astype(np.float64), candidate, WIDE[settings.accumulate])
        return score(candidate)

    try:
        return greedy_recipe([score(c.path) for c in checkpoints], soup, settings.ties)
    except ValueError as error:
        raise UsageError(f"--evaluate: {error}") from error
    finally:
        if candidate.is_dir():
            shutil.rmtree(candidate)
        candidate.unlink(missing_ok=True)

"""Writes a merge: one file, or a folder with the configuration and the tokenizer of one of the models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tna_jax.io.json_files import read_json, write_json
from tna_jax.io.tensor_headers import INDEX
from tna_jax.programs.cli.progress import console, room_for_bar
from tna_jax.programs.merge import folder_output, streaming, tokenizers
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import method as merge_method
from tna_jax.programs.merge import plan as merge_plan
from tna_jax.programs.merge.job import Job
from tna_jax.programs.merge.plan import Plan
from tna_jax.programs.merge.streaming import Counts

WIDE: dict[str, np.dtype] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}


def write(
    job: Job,
    weights: np.ndarray,
    out: Path,
    *,
    verified: bool = False,
    extra: Callable[[Path, Counts], None] | None = None,
) -> Counts:
    """Writes the merge: one file if `out` ends in .safetensors, else a folder, whole or not at all.

    Args:
      job: the models, the base and the method.
      weights: (M,) float64, of the models.
      out: file or folder.
      verified: whether all have the anchors that their common recipe names: then the metadata says so of the average.
      extra: called with the finished folder, or the file, and what was merged, before a folder takes its place.
    """
    plan = job.plan_of(weights, out)
    counts = Counts()
    if out.suffix == ".safetensors":
        _write_tensors(job, plan, weights, out.parent, counts, verified)
        if extra is not None:
            extra(out, counts)
        return counts
    with folder_output.whole_folder(out.resolve()) as folder:
        _write_tensors(job, plan, weights, folder, counts, verified)
        _write_others(job, plan, weights, folder)
        if extra is not None:
            extra(folder, counts)
    return counts


def _write_tensors(job: Job, plan: Plan, weights: np.ndarray, folder: Path, counts: Counts, verified: bool) -> None:
    """Writes the safetensors files, and counts what went into them."""
    whole = merge_method.of(job.method, job.options, job.settings.scope, plan)
    how: dict[str, Any] = {} if job.method.name == "average" else {"method": job.method.name, "options": job.options}
    how |= {"match": job.settings.match_by} if job.settings.match else {}
    bar = Progress(
        TextColumn("merging"), *room_for_bar(55), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=plan.bytes)
        for name, outputs in plan.files.items():
            metadata = merge_metadata.metadata(job.models, name, weights, verified, how)
            streaming.write(
                folder / name, outputs, metadata, counts, wide=WIDE[job.settings.accumulate], whole=whole,
                advance=lambda bytes: bar.advance(task, bytes),
            )  # fmt: skip


def _write_others(job: Job, plan: Plan, weights: np.ndarray, folder: Path) -> None:
    """Writes the files beside the tensors: configuration, tokenizer, index, record of the pretraining."""
    for file in merge_metadata.others(job.described):
        if file.name == INDEX:
            continue
        target = folder / file.relative_to(job.described.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for file in tokenizers.files(job.tokenizer) if job.tokenizer is not None else ():
        shutil.copyfile(file, folder / file.name)
    if job.settings.dtype is not None and (folder / "config.json").is_file():
        config = _of_dtype(read_json(folder / "config.json"), job.settings.dtype)
        text = json.dumps(config, indent=2, ensure_ascii=False)  # Infinity stays, which some models' limits are
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    if (index := merge_plan.index(plan)) is not None:
        write_json(folder / INDEX, index)
    record = merge_metadata.pretraining(job.models, weights)
    if record is not None:
        write_json(folder / merge_metadata.PRETRAINING, record)


def _of_dtype(config: Any, dtype: str) -> Any:
    """Returns a configuration that names the dtype in which the merge is written wherever it names one: readers load in that."""
    if not isinstance(config, dict):
        return config
    return {
        key: dtype if key in ("torch_dtype", "dtype") and isinstance(value, str) else _of_dtype(value, dtype)
        for key, value in config.items()
    }

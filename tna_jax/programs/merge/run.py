"""`tna merge A B ... -o OUT`: merges safetensors checkpoints of any family, streamed: averages, task vectors, greedy soups, adapters."""

import contextlib
import hashlib
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.io.tensor_headers import INDEX, Checkpoint
from tna_jax.programs.cli.progress import Interrupted, console, plural, room_for_bar, size
from tna_jax.programs.merge import (
    configurations,
    folder_output,
    greedy,
    inputs,
    model_card,
    permuted,
    recipe,
    similarity,
    streaming,
    validate,
    verify_anchors,
)
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import method as merge_method
from tna_jax.programs.merge import plan as merge_plan
from tna_jax.programs.merge import report as merge_report
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.plan import Choices, Plan
from tna_jax.programs.merge.streaming import Counts
from tna_jax.programs.reports.present import present

WIDE: dict[str, np.dtype] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
REPORT = folder_output.REPORT


def run(settings: MergeOptions) -> dict[str, Any] | None:
    """Merges the files and writes a report beside them; returns what the report holds, or None for a dry run."""
    if settings.recipe is not None:
        settings = recipe.read(settings)
    settings.check()
    out = Path(settings.out)
    method, options = merge_method.check(
        settings.method, len(settings.models), settings.base is not None, settings.method_values
    )
    held = inputs.open_inputs(
        settings.models, settings.base, settings.strip_prefix, settings.add_prefix, settings.choices
    )
    checkpoints, base = held.models, held.base
    if settings.match:
        permuted.require_matchable([*checkpoints, *([base] if base is not None else [])])
    validate.require_alike(checkpoints, base, settings.choices)
    report = out.with_suffix(".merge.json") if settings.single else out / REPORT
    weights = np.array(settings.weights or [1] * len(checkpoints), np.float64)
    plan = _plan(checkpoints, held.base, weights, settings.choices, out)
    described = held.base if held.base is not None and settings.models[0] in held.folded else checkpoints[0]
    _require_apart(settings, plan, report, described, [*checkpoints, *([held.base] if held.base else [])])
    differences = configurations.require_same_function(checkpoints, held.base, settings.allow_different)
    if not settings.single and settings.overwrite:
        folder_output.check_replaceable(out)
    warnings = validate.warn(checkpoints) + _told(differences, settings.allow_different)
    if settings.dry_run:
        merge_report.print_plan(settings, plan, warnings, merge_method.memory(method, plan))
        return None
    _can_write(out, plan.bytes, settings.single)
    folder_output.sweep(out.resolve())
    matched = None
    if settings.match:
        from tna_jax.programs.merge import match  # JAX, which a merge without it does without

        checkpoints, base, matched = match.match(checkpoints, base)
    anchors = verify_anchors.verify(checkpoints) if settings.method == "average" else None
    console.print(
        f"{len(checkpoints)} models of {len(checkpoints[0].tensors)} tensors, {size(checkpoints[0].bytes)}; "
        f"{method.name}, sums in {settings.accumulate}"
    )
    how: dict[str, Any] = {} if method.name == "average" else {"method": method.name, "options": options}
    how |= {"match": True} if settings.match else {}
    chosen = None
    failed: list[str] = []
    start = time.perf_counter()

    def write(weights: np.ndarray, out: Path, extra: Callable[[Path, Counts], None] | None = None) -> Counts:
        plan = _plan(checkpoints, base, weights, settings.choices, out)
        whole = merge_method.of(method, options, settings.scope, plan)
        return merge(checkpoints, plan, weights, out, WIDE[settings.accumulate], whole=whole, described=described, how=how,
                     verified=anchors is not None, extra=extra)  # fmt: skip

    with _terminated_like_interrupted(out), contextlib.closing(_Hashing(checkpoints, base)) as hashes:
        if settings.evaluate is not None:
            scores = (
                report.with_name(f"{report.stem}.scores.json")
                if settings.single
                else out.with_name(f"{out.name}.scores.json")
            )
            chosen, failed = greedy.search(settings, checkpoints, write, scores)
            weights = chosen.weights.astype(np.float64)
        result: dict[str, Any] = {}

        def finish(folder: Path, counts: Counts) -> None:
            near = counts.similarity.summary(weights) if counts.similarity is not None else None
            names = [str(checkpoint.path) for checkpoint in checkpoints]
            if near is not None and (far := similarity.warning(near, names)):
                warnings.append(far)
                console.print(f"warning: {far}", highlight=False)
            warnings.extend(validate.warn_of_values(checkpoints, weights, counts.not_finite))
            warnings.extend([*failed, *held.notes])
            result.update(
                provenance=provenance([], jax_used=False), models=settings.models, base=settings.base, method=method.name,
                method_options=options, weights=_shares(weights, method.normalized), accumulate=settings.accumulate,
                dtype=settings.dtype, tensors=len(plan.outputs), entries=counts.entries, entries_equal_in_all=counts.equal,
                copied=plan.copied, adapters=held.folded, anchors_verified=anchors, similarity=near,
                differences=[d._asdict() for d in differences], allowed_different=settings.allow_different,
                warnings=warnings, taken_from_the_first=counts.differing_integers, inputs=hashes.result(),
                seconds=time.perf_counter() - start, files=_names(folder) if folder.is_dir() else [],
            )  # fmt: skip
            if matched is not None:
                result.update(matched=[m.record() for m in matched])
            if chosen is not None:
                result.update(evaluate=settings.evaluate, ties=settings.ties, score=chosen.score,
                              trail=[step._asdict() for step in chosen.trail])  # fmt: skip
            if folder.is_dir():
                model_card.write(folder, to_json(result))
                result["files"] = _names(folder)
                write_json(folder / REPORT, result)

        counts = write(weights, out, finish)
    if settings.single:
        write_json(report, result)
    if counts.differing_integers:
        names = ", ".join(counts.differing_integers)
        console.print(f"not floating-point and different, so {checkpoints[0].path}'s were taken: {names}")
    written_result: dict[str, Any] = to_json(result)
    present(merge_report.describe(written_result))
    print(f"wrote {out} and {report}")
    return written_result


def _plan(
    checkpoints: list[Checkpoint], base: Checkpoint | None, weights: np.ndarray, choices: Choices, out: Path
) -> Plan:
    single = out.name if out.suffix == ".safetensors" else None
    return merge_plan.make(checkpoints, base, tuple(weights.tolist()), choices, single)


def merge(
    checkpoints: list[Checkpoint],
    plan: Plan,
    weights: np.ndarray,
    out: Path,
    wide: np.dtype,
    *,
    whole: streaming.Whole | None,
    described: Checkpoint,
    how: dict[str, Any],
    verified: bool = False,
    extra: Callable[[Path, Counts], None] | None = None,
) -> Counts:
    """Writes the merge: one file if `out` ends in .safetensors, else a folder, whole or not at all.

    Args:
      checkpoints: the models.
      plan: what is written.
      weights: (M,) float64, for the metadata.
      out: file or folder.
      wide: dtype of the sums.
      whole: the method; None averages.
      described: the model whose configuration and tokenizer a folder gets.
      how: the method and its options, for the metadata.
      verified: whether all have the anchors that their common recipe names: then the metadata says so of the average.
      extra: called with the finished folder, or the file, and what was merged, before a folder takes its place.
    """
    counts = Counts()
    bar = Progress(
        TextColumn("merging"), *room_for_bar(55), DownloadColumn(), TransferSpeedColumn(), TextColumn("left"),
        TimeRemainingColumn(), console=console,
    )  # fmt: skip

    def files(folder: Path) -> None:
        with bar:
            task = bar.add_task("", total=plan.bytes)
            for name, outputs in plan.files.items():
                metadata = merge_metadata.metadata(checkpoints, name, weights, verified, how)
                streaming.write(
                    folder / name, outputs, metadata, counts, wide=wide, whole=whole,
                    advance=lambda bytes: bar.advance(task, bytes),
                )  # fmt: skip

    if out.suffix == ".safetensors":
        files(out.parent)
        if extra is not None:
            extra(out, counts)
        return counts
    with folder_output.whole_folder(out.resolve()) as folder:
        files(folder)
        for file in merge_metadata.others(described):
            if file.name == INDEX:
                continue
            target = folder / file.relative_to(described.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        if (index := merge_plan.index(plan)) is not None:
            write_json(folder / INDEX, index)
        record = merge_metadata.pretraining(checkpoints, weights)
        if record is not None:
            write_json(folder / merge_metadata.PRETRAINING, record)
        if extra is not None:
            extra(folder, counts)
    return counts


def _require_apart(
    settings: MergeOptions, plan: Plan, report: Path, described: Checkpoint, held: list[Checkpoint]
) -> None:
    out = Path(settings.out)
    written = [report, *([out] if settings.single else [out / name for name in plan.files])]
    if not settings.single:
        written += [out / file.name for file in merge_metadata.others(described)]
        written += [file for file in out.iterdir() if folder_output.is_weights(file.name)] if out.is_dir() else []
    written += [greedy.candidate_path(settings)] if settings.evaluate else []
    merge_metadata.require_apart(written, held)


def _told(differences: list[configurations.Difference], allowed: tuple[str, ...]) -> list[str]:
    """Prints and returns what differs between the configurations and was not refused."""
    sentences = [
        f"{difference}{': allowed by --allow-different' if difference.changes_function else ''}"
        for difference in differences
    ]
    for sentence in sentences[: validate.SHOWN]:
        console.print(f"warning: {sentence}", highlight=False)
    if len(sentences) > validate.SHOWN:
        console.print(f"warning: ... and {plural(len(sentences) - validate.SHOWN, 'more difference')}, see the report")
    return sentences


def _can_write(out: Path, bytes: int, single: bool) -> None:
    try:
        folder = out.resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {error.strerror or error}") from error
    if free < bytes:
        raise UsageError(f"--out {out} needs {size(bytes)}, but {size(free)} are free there")


def _shares(weights: np.ndarray, normalized: bool) -> np.ndarray:
    return weights / weights.sum() if normalized else weights


class _Hashing:
    """The SHA-256 of every file that is merged, computed in a thread while the merge runs; closing it ends it at once."""

    def __init__(self, checkpoints: list[Checkpoint], base: Checkpoint | None) -> None:
        held = [*checkpoints, *([base] if base is not None else [])]
        self.files = sorted(
            {file for c in held for tensor in c.tensors.values() for file in verify_anchors.files_of(tensor)}
        )
        self.stopped = False
        self.pool = ThreadPoolExecutor(1)
        self.digests = self.pool.submit(lambda: {str(file): self._digest(file) for file in self.files})

    def _digest(self, file: Path) -> str:
        digest = hashlib.sha256()
        with open(file, "rb") as opened:
            while not self.stopped and (part := opened.read(HASHED)):
                digest.update(part)
        return digest.hexdigest()

    def result(self) -> dict[str, str]:
        """Returns the hashes by path, when all are known."""
        return self.digests.result()

    def close(self) -> None:
        """Ends the thread, finished or not."""
        self.stopped = True
        self.pool.shutdown()


HASHED = 1 << 22
"""Bytes that are hashed at a time."""


def _names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


class _terminated_like_interrupted:
    """While it is open, SIGTERM ends the program as Ctrl-C does: it is said what --out holds, and nothing is half written."""

    def __init__(self, out: Path) -> None:
        self.out, self.held = out, _identity(out)

    def __enter__(self) -> None:
        def stop(number: int, frame: Any) -> None:
            raise KeyboardInterrupt

        try:
            self.before = signal.signal(signal.SIGTERM, stop)
        except ValueError:  # not the main thread: a test, a notebook's worker
            self.before = None

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)
        if kind is KeyboardInterrupt:
            new, old = _identity(self.out) not in (self.held, None), self.held is not None
            held = "the merge was finished" if new else "what it held before is there" if old else "nothing was written"
            console.print(f"stopped; {self.out}: {held}", highlight=False)
            raise Interrupted from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

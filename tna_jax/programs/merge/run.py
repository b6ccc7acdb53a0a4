"""`tna merge A B ... -o OUT`: merges safetensors checkpoints of any family, streamed: averages, task vectors, greedy soups, adapters."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.programs.cli.messages import print_warning, wrote
from tna_jax.programs.cli.progress import console, size
from tna_jax.programs.merge import (
    folder_output,
    greedy,
    job,
    model_card,
    similarity,
    validate,
    verify_anchors,
    write,
)
from tna_jax.programs.merge import method as merge_method
from tna_jax.programs.merge import report as merge_report
from tna_jax.programs.merge.hashing import Hashing
from tna_jax.programs.merge.interruption import terminated_like_interrupted
from tna_jax.programs.merge.job import Job
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.streaming import Counts
from tna_jax.programs.reports.present import present

if TYPE_CHECKING:
    from tna_jax.averaging import GreedySoup
    from tna_jax.programs.merge.match import Matched

REPORT = folder_output.REPORT


@dataclasses.dataclass
class Findings:
    """What was found out beside the merge, for the report."""

    anchors: dict[str, Any] | None
    """The anchors that all models share, `None` where their files name none."""
    matched: "list[Matched] | None" = None
    soup: "GreedySoup | None" = None
    failed: list[str] = dataclasses.field(default_factory=list)
    """Why candidates of the greedy soup were left out."""


def run(settings: MergeOptions) -> dict[str, Any] | None:
    """Merges the files and writes a report beside them; returns what the report holds, or None for a dry run."""
    merge = job.prepare(settings)
    if merge.settings.dry_run:
        merge_report.print_plan(
            merge.settings, merge.plan, merge.warnings, merge_method.memory(merge.method, merge.plan)
        )
        return None
    job.require_room(merge.out, merge.plan.bytes)
    folder_output.sweep(merge.out.resolve())
    merge, matched = _match(merge)
    findings = Findings(verify_anchors.verify(merge.models) if merge.settings.method == "average" else None, matched)
    console.print(
        f"{len(merge.models)} models of {len(merge.models[0].tensors)} tensors, {size(merge.models[0].bytes)}; "
        f"{merge.method.name}, sums in {merge.settings.accumulate}"
    )
    result: dict[str, Any] = {}
    start = time.perf_counter()
    with terminated_like_interrupted(merge.out), contextlib.closing(Hashing(merge.models, merge.base)) as hashes:
        merge = _search(merge, findings)

        def finish(folder: Path, counts: Counts) -> None:
            result.update(_result(merge, findings, counts, hashes, folder, start))
            if folder.is_dir():
                model_card.write(folder, to_json(result))
                result["files"] = _names(folder)
                write_json(folder / REPORT, result)

        write.write(merge, merge.weights, merge.out, verified=findings.anchors is not None, extra=finish)
    if merge.settings.single:
        write_json(merge.report, result)
    written: dict[str, Any] = to_json(result)
    present(merge_report.describe(written))
    wrote(f"{merge.out} and {merge.report}", "tna", "report", str(merge.report))
    return written


def _match(merge: Job) -> "tuple[Job, list[Matched] | None]":
    """Brings the hidden units of all models into the order of the first one's, where --match asks for it."""
    if not merge.settings.match:
        return merge, None
    from tna_jax.programs.merge import match  # JAX, which a merge without it does without

    models, base, matched = match.match(merge.models, merge.base, rotation=merge.settings.match_by == "rotation")
    return dataclasses.replace(merge, models=models, base=base), matched


def _search(merge: Job, findings: Findings) -> Job:
    """Searches the greedy soup, where --evaluate asks for one: its weights take the place of the given ones."""
    if merge.settings.evaluate is None:
        return merge
    verified = findings.anchors is not None
    findings.soup, findings.failed = greedy.search(
        merge.settings, merge.models, lambda weights, out: write.write(merge, weights, out, verified=verified), merge.scores
    )  # fmt: skip
    return dataclasses.replace(merge, weights=findings.soup.weights.astype(np.float64))


def _result(
    merge: Job, findings: Findings, counts: Counts, hashes: Hashing, folder: Path, start: float
) -> dict[str, Any]:
    """Returns what the report holds."""
    settings, method = merge.settings, merge.method
    near = counts.similarity.summary(merge.weights) if counts.similarity is not None else None
    result: dict[str, Any] = {
        "provenance": provenance([], jax_used=False), "models": settings.models, "base": settings.base, "method": method.name,
        "method_options": merge.options, "weights": _shares(merge.weights, method.normalized),
        "accumulate": settings.accumulate, "dtype": settings.dtype, "tensors": len(merge.plan.outputs),
        "entries": counts.entries, "entries_equal_in_all": counts.equal, "copied": merge.plan.copied,
        "adapters": merge.folded, "anchors_verified": findings.anchors, "similarity": near,
        "differences": [d._asdict() for d in merge.differences], "allowed_different": settings.allow_different,
        "warnings": _warnings(merge, findings, counts, near), "taken_from_the_first": counts.differing_integers,
        "inputs": hashes.result(), "seconds": time.perf_counter() - start,
        "files": _names(folder) if folder.is_dir() else [],
    }  # fmt: skip
    if findings.matched is not None:
        result.update(matched=[m.record() for m in findings.matched])
    if findings.soup is not None:
        result.update(evaluate=settings.evaluate, ties=settings.ties, score=findings.soup.score,
                      trail=[step._asdict() for step in findings.soup.trail])  # fmt: skip
    return result


def _warnings(merge: Job, findings: Findings, counts: Counts, near: dict[str, Any] | None) -> list[str]:
    """Returns all that the user should know, and prints of it what only the merge has shown."""
    warnings = list(merge.warnings)
    names = [str(checkpoint.path) for checkpoint in merge.models]
    if near is not None and (far := similarity.warning(near, names)):
        warnings.append(far)
        print_warning(far)
    if counts.differing_integers:
        listed = ", ".join(counts.differing_integers)
        taken = f"not floating-point and different, so {merge.models[0].path}'s were taken: {listed}"
        warnings.append(taken)
        print_warning(taken)
    warnings.extend(validate.warn_of_values(merge.models, merge.weights, counts.not_finite))
    return [*warnings, *findings.failed, *merge.notes]


def _shares(weights: np.ndarray, normalized: bool) -> np.ndarray:
    return weights / weights.sum() if normalized else weights


def _names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())

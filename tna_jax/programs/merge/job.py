"""A merge that nothing speaks against: its options and headers are read and checked before a byte is written."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.merging.method import Method
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import console, plural, size
from tna_jax.programs.merge import (
    configurations,
    folder_output,
    greedy,
    inputs,
    permuted,
    recipe,
    tokenizers,
    unmergeable,
    validate,
)
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import method as merge_method
from tna_jax.programs.merge import plan as merge_plan
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.plan import Plan
from tna_jax.programs.merge.tied import tied_heads


@dataclasses.dataclass(frozen=True)
class Job:
    """What is merged, how, and where it goes."""

    settings: MergeOptions
    """With what the recipe says."""
    method: Method
    options: dict[str, Any]
    """Of the method, defaults filled in."""
    models: list[Checkpoint]
    base: Checkpoint | None
    weights: np.ndarray
    """(M,) float64"""
    plan: Plan
    described: Checkpoint
    """The model whose configuration and tokenizer a folder gets."""
    folded: list[str]
    """Names of the models that are adapters, folded into the base."""
    notes: list[str]
    """What was done so that the models fit each other."""
    differences: list[configurations.Difference]
    """Between the models' configurations."""
    warnings: list[str]
    tied: dict[str, str]
    """By a head's name that of the embeddings that it repeats."""
    tokenizer: Path | None
    """Folder whose tokenizer a folder gets, where the described model has none and another one has."""

    @property
    def out(self) -> Path:
        """The file or folder that is written."""
        return Path(self.settings.out)

    @property
    def report(self) -> Path:
        """The report's file: beside a file, inside a folder."""
        return self.out.with_suffix(".merge.json") if self.settings.single else self.out / folder_output.REPORT

    @property
    def scores(self) -> Path:
        """The file of a greedy soup's scores, beside what is written."""
        stem = self.report.stem if self.settings.single else self.out.name
        return self.out.with_name(f"{stem}.scores.json")

    def plan_of(self, weights: np.ndarray, out: Path) -> Plan:
        """Returns what is written for other weights (M,), or elsewhere."""
        tied = (
            tied_heads(self.models, self.base)[0] if self.settings.match else self.tied
        )  # matched models may be turned
        return plan_of(self.settings, self.models, self.base, weights, out, tied)


def prepare(settings: MergeOptions) -> Job:
    """Reads the recipe and the headers of all files, and checks all that can be checked.

    Raises:
      UsageError: the merge is not possible, would not be of one network, or would be written over something.
    """
    if settings.recipe is not None:
        settings = recipe.read(settings)
    settings.check()
    method, options = merge_method.check(
        settings.method, len(settings.models), settings.base is not None, settings.method_values
    )
    opened = inputs.open_inputs(
        settings.models, settings.base, settings.strip_prefix, settings.add_prefix, settings.choices
    )
    models, base = opened.models, opened.base
    if settings.match:
        permuted.require_matchable([*models, *([base] if base is not None else [])])
    validate.require_alike(models, base, settings.choices)
    weights = np.array(settings.weights or [1] * len(models), np.float64)
    tied, untied = tied_heads(models, base)
    described = base if base is not None and settings.models[0] in opened.folded else models[0]
    job = Job(
        settings, method, options, models, base, weights, plan_of(settings, models, base, weights, Path(settings.out), tied),
        described=described, folded=opened.folded, notes=opened.notes, differences=[], warnings=[], tied=tied,
        tokenizer=None if settings.single else tokenizers.lender(
            unmergeable.folder(described), [*map(unmergeable.folder, models)], adapter=described is base
        ),
    )  # fmt: skip
    _require_apart(job)
    differences = configurations.require_same_function(models, base, settings.allow_different)
    if not settings.single and settings.overwrite:
        folder_output.check_replaceable(job.out)
    without_change = base if method.needs_base else None
    warnings = validate.warn(models, without_change, untied) + _print_differences(differences, settings.allow_different)
    notes = [*job.notes, *_tokenizer_note(job)]
    return dataclasses.replace(job, differences=differences, warnings=warnings, notes=notes)


def _tokenizer_note(job: Job) -> list[str]:
    if job.tokenizer is None:
        return []
    note = f"the merge gets the tokenizer of {job.tokenizer}: {unmergeable.folder(job.described)} has none, or not the adapter's"
    console.print(note, highlight=False)
    return [note]


def plan_of(
    settings: MergeOptions,
    models: list[Checkpoint],
    base: Checkpoint | None,
    weights: np.ndarray,
    out: Path,
    tied: dict[str, str],
) -> Plan:
    """Returns what a merge with these weights (M,) writes."""
    single = out.name if out.suffix == ".safetensors" else None
    return merge_plan.make(models, base, tuple(weights.tolist()), settings.choices, single, tied)


def require_room(out: Path, bytes: int) -> None:
    """Makes the folder that `out` will lie in, and refuses an output that its disk has no room for."""
    try:
        folder = out.resolve().parent
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UsageError(f"cannot write to --out {out}: {error.strerror or error}") from error
    if free < bytes:
        raise UsageError(f"--out {out} needs {size(bytes)}, but {size(free)} are free there")


def _require_apart(job: Job) -> None:
    """Refuses an output that would be written over one of the files that are merged."""
    settings, out = job.settings, job.out
    written = [job.report, *([out] if settings.single else [out / name for name in job.plan.files])]
    if not settings.single:
        written += [out / file.name for file in merge_metadata.others(job.described)]
        written += [file for file in out.iterdir() if folder_output.is_weights(file.name)] if out.is_dir() else []
    written += [greedy.candidate_path(settings)] if settings.evaluate else []
    merge_metadata.require_apart(written, [*job.models, *([job.base] if job.base else [])])


def _print_differences(differences: list[configurations.Difference], allowed: tuple[str, ...]) -> list[str]:
    """Prints and returns what differs between the configurations and was not refused."""
    sentences = [
        f"{difference}{': allowed by --allow-different' if difference.changes_function else ''}"
        for difference in differences
    ]
    for sentence in sentences[: validate.SHOWN]:
        print_warning(sentence)
    if len(sentences) > validate.SHOWN:
        print_warning(f"... and {plural(len(sentences) - validate.SHOWN, 'more difference')}, see the report")
    return sentences

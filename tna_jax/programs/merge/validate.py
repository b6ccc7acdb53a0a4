"""What speaks against averaging files: other networks are refused; of what makes an average poor there are warnings."""

import itertools
import os
from collections.abc import Mapping

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import verify_anchors
from tna_jax.programs.merge.plan import Choices

STATISTICS = ("batch_stats/", "running_mean", "running_var", "moving_mean", "moving_variance")
"""Parts of the names of BatchNorm's running statistics."""


SHOWN = 10
"""Differences and tensors that are named; of more there is a count."""


def require_alike(checkpoints: list[Checkpoint], base: Checkpoint | None, choices: Choices) -> None:
    """Raises UsageError unless all have the same tensors: it names the kinds of models and the first differences."""
    held = [*checkpoints, *([base] if base is not None else [])]
    wrong = [line for line in _differences(held, choices) if line]
    if not wrong:
        return
    kinds = merge_metadata.kinds(held)
    shown = wrong[:SHOWN] + ([f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])
    head = f"{kinds}: these are other networks; they" if kinds else "the models"
    raise UsageError("\n  ".join([f"{head} differ in {plural(len(wrong), 'place')}:", *shown]))


def _differences(checkpoints: list[Checkpoint], choices: Choices) -> list[str]:
    """Describes what keeps models from being merged, of the tensors that are."""
    first, *others = checkpoints
    lines = []
    for other in others:
        if prefix := _prefix(first, other):
            lines.append(prefix)
            continue
        for name in sorted({*first.tensors, *other.tensors}):
            if not choices.merged(name):
                continue
            ours, theirs = first.tensors.get(name), other.tensors.get(name)
            if ours is None or theirs is None:
                lines.append(f"{name} is not in {first.path if ours is None else other.path}")
            elif ours.shape != theirs.shape:
                lines.append(f"{name} is {list(ours.shape)} in {first.path} but {list(theirs.shape)} in {other.path}")
            elif ours.kind != theirs.kind and (choices.dtype is None or not (ours.floating and theirs.floating)):
                hint = "; --dtype says in which one to write" if ours.floating and theirs.floating else ""
                lines.append(f"{name} is {ours.kind} in {first.path} but {theirs.kind} in {other.path}{hint}")
    if any("vocab" in line or "embed" in line or "wte" in line for line in lines if " but [" in line):
        lines.append(
            "vocabularies of other sizes: give both the same tokens first (transformers: resize_token_embeddings), or leave "
            "these tensors out with --skip"
        )
    return lines


def _prefix(first: Checkpoint, other: Checkpoint) -> str:
    """Says that models name the same with prefixes in front, and the option that takes them off; empty if not."""
    names = [set(model.tensors) for model in (first, other)]
    if names[0] == names[1] or merge_metadata.kinds([first, other]):
        return ""
    fronts = itertools.product(*map(_fronts, names))
    for pair in fronts:
        if {n.removeprefix(pair[0]) for n in names[0]} == {n.removeprefix(pair[1]) for n in names[1]}:
            said = [
                f"{m.path} names everything with {p!r} in front" for m, p in zip((first, other), pair, strict=True) if p
            ]
            option = " ".join(prefix for prefix in dict.fromkeys(pair) if prefix)
            return f"{' and '.join(said)}: --strip-prefix {option} takes {'it' if len(said) == 1 else 'them'} off"
    for (_, short), (b, long) in itertools.permutations(zip((first, other), names, strict=True)):
        for prefix in _fronts({name for name in long if name not in short}, whole=False):
            stripped = {name.removeprefix(prefix) for name in long}
            if prefix and len(stripped & short) > max(len(long & short), len(short) / 2):
                rest = sorted(stripped ^ short)
                shown = ", ".join(rest[:SHOWN]) + (f", ... and {len(rest) - SHOWN} more" if len(rest) > SHOWN else "")
                lacks = f"; then one of them lacks {shown}: --skip leaves tensors out" if rest else ""
                share = f"{sum(name.startswith(prefix) for name in long)} of {plural(len(long), 'tensor')}"
                return f"{b.path} names {share} with {prefix!r} in front: --strip-prefix {prefix} takes it off{lacks}"
    return ""


def _fronts(names: set[str], whole: bool = True) -> list[str]:
    """Returns what all names begin with, up to a dot each time, the empty text first; with `whole` off, what any begins with."""
    front = os.path.commonprefix(sorted(names)) if whole else min(names, default="")
    others = sorted({name.split(".")[0] + "." for name in names if "." in name}) if not whole else []
    return ["", *(front[: i + 1] for i, letter in enumerate(front) if letter == "."), *others]


def warn_of_values(checkpoints: list[Checkpoint], weights: np.ndarray, not_finite: Mapping[str, int]) -> list[str]:
    """Prints and returns a sentence that names the NaN or infinite entries of the average, and whose they are."""
    if not not_finite:
        return []
    names = ", ".join(f"{name} ({count})" for name, count in list(not_finite.items())[:SHOWN])
    more = f" and {len(not_finite) - SHOWN} more tensors" if len(not_finite) > SHOWN else ""
    whose = []
    for checkpoint, weight in zip(checkpoints, weights, strict=True):
        arrays = (checkpoint.tensors[name].read() for name in not_finite) if weight else ()
        bad = sum(int(np.count_nonzero(~np.isfinite(array))) for array in arrays)
        whose += [f"{bad} in {checkpoint.path}"] if bad else []
    sentence = (
        f"NaN or infinite entries in the average: {names}{more}; of the models: "
        f"{', '.join(whose) or 'none, the average left the range of its dtype'}. A model that diverged should be left out."
    )
    print_warning(sentence)
    return [sentence]


def warn(checkpoints: list[Checkpoint], base: Checkpoint | None, further: list[str]) -> list[str]:
    """Prints and returns what speaks against merging the files as they are, in sentences.

    Args:
      checkpoints: the models.
      base: where task vectors start, if the method takes them.
      further: sentences that are printed too.
    """
    sentences = list(further)
    if base is not None and any(c.path.resolve() == base.path.resolve() for c in checkpoints):
        sentences.append(
            f"{base.path} is the base and one of the models too: its task vector is 0, and counts as one of {len(checkpoints)}. Leave it out "
            "of the models, if its place is that of the base."
        )
    recipes = [verify_anchors.read_recipe(checkpoint) for checkpoint in checkpoints]
    if any(recipes) and any(recipe != recipes[0] for recipe in recipes):
        described = [f"ratio {r.ratio:g} seed {r.seed}" if r else "no anchors" for r in recipes]
        sentences.append(
            f"These models do not share their anchors ({'; '.join(dict.fromkeys(described))}): they were not trained to be averaged."
        )
    statistics = [name for name in checkpoints[0].tensors if any(part in name for part in STATISTICS)]
    if statistics:
        sentences.append(
            f"{len(statistics)} tensors are running statistics of BatchNorm ({statistics[0]}, ...): averaged as they are, they do "
            "not fit the merged weights. Estimate them again on training inputs: tna fuse does, tna_jax.repair.reset_batch_stats "
            "in your own code."
        )
    for sentence in sentences:
        print_warning(sentence)
    return sentences

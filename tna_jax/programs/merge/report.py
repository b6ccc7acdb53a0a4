"""What `tna merge` prints: the weights, or the trail of a greedy soup, and how much was copied."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, differences
from tna_jax.programs.cli.progress import console, plural, wide_console
from tna_jax.programs.merge import metadata as merge_metadata
from tna_jax.programs.merge import verify_anchors

STATISTICS = ("batch_stats/", "running_mean", "running_var", "moving_mean", "moving_variance")
"""Parts of the names of BatchNorm's running statistics."""


SHOWN = 10
"""Differences and tensors that are named; of more there is a count."""


def require_alike(checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError unless all have the same tensors: what kinds of models they are, the first differences, how many more."""
    wrong = differences(checkpoints)
    if not wrong:
        return
    kinds = merge_metadata.kinds(checkpoints)
    shown = wrong[:SHOWN] + ([f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])
    head = f"{kinds}: these are other networks; they" if kinds else "the models"
    raise UsageError("\n  ".join([f"{head} differ in {plural(len(wrong), 'place')}:", *shown]))


def warn_of_values(checkpoints: list[Checkpoint], weights: np.ndarray, not_finite: Mapping[str, int]) -> list[str]:
    """That the average has entries which are NaN or infinite, and whose they are: a sentence, also printed."""
    if not not_finite:
        return []
    names = ", ".join(f"{name} ({count})" for name, count in list(not_finite.items())[:SHOWN])
    more = f" and {len(not_finite) - SHOWN} more tensors" if len(not_finite) > SHOWN else ""
    whose = []
    for checkpoint, weight in zip(checkpoints, weights, strict=True):
        found = (checkpoint.tensors[name].read() for name in not_finite) if weight else ()
        bad = sum(int(np.count_nonzero(~np.isfinite(array))) for array in found)
        whose += [f"{bad} in {checkpoint.path}"] if bad else []
    sentence = (
        f"NaN or infinite entries in the average: {names}{more}; of the models: "
        f"{', '.join(whose) or 'none, the average left the range of its dtype'}. A model that diverged should be left out."
    )
    console.print(f"warning: {sentence}", highlight=False)
    return [sentence]


def warn(checkpoints: list[Checkpoint]) -> list[str]:
    """What speaks against averaging the files as they are, in sentences, also printed."""
    found = []
    recipes = [verify_anchors.recipe(checkpoint) for checkpoint in checkpoints]
    if any(recipes) and any(recipe != recipes[0] for recipe in recipes):
        told = [f"ratio {r['ratio']:g} seed {r['seed']}" if r else "no anchors" for r in recipes]
        found.append(
            f"These models do not share their anchors ({'; '.join(dict.fromkeys(told))}): they were not trained to be averaged."
        )
    statistics = [name for name in checkpoints[0].tensors if any(part in name for part in STATISTICS)]
    if statistics:
        found.append(
            f"{len(statistics)} tensors are running statistics of BatchNorm ({statistics[0]}, ...): averaged as they are, they do "
            "not fit the merged weights. Estimate them again on training inputs: tna fuse does, tna_jax.repair.reset_batch_stats "
            "in your own code."
        )
    for sentence in found:
        console.print(f"warning: {sentence}", highlight=False)
    return found


def table(result: dict[str, Any]) -> None:
    """Prints every model, in the order in which a greedy soup tried them."""
    lines = Table(title=f"{result['tensors']} tensors, sums in {result['accumulate']}", title_justify="left")
    trail = {step["model"]: step for step in result.get("trail", [])}
    for head in ("model", "weight", *(("score alone", "soup with it", "kept") if trail else ())):
        lines.add_column(head, justify="left" if head == "model" else "right")
    for i in sorted(range(len(result["models"])), key=lambda i: list(trail).index(i) if trail else i):
        cells = [result["models"][i], f"{result['weights'][i]:.4f}"]
        if trail:
            numbers = [trail[i][key] for key in ("own", "score")]
            cells += ["-" if n is None else f"{n:.6g}" for n in numbers] + ["yes" if trail[i]["kept"] else "no"]
        lines.add_row(*cells)
    wide_console().print(lines)
    if result["entries"]:
        share = result["entries_equal_in_all"] / result["entries"]
        print(f"{share:.2%} of {result['entries']:,} entries are equal in all models and were copied bit for bit")
    if result["anchors_verified"]:
        count = result["anchors_verified"]["anchored"]
        print(f"the {count:,} anchors that the files' recipe names are the same in all models")

"""What `tna merge` prints: the weights, or the trail of a greedy soup, and how much was copied."""

from typing import Any

from rich.table import Table

from fusion import shared_anchors
from train.progress import console, wide_console
from train.tensor_files import Checkpoint

STATISTICS = ("batch_stats/", "running_mean", "running_var", "moving_mean", "moving_variance")
"""Parts of the names of BatchNorm's running statistics."""


def warn(checkpoints: list[Checkpoint]) -> list[str]:
    """What speaks against averaging the files as they are, in sentences, also printed."""
    found = []
    recipes = [shared_anchors.recipe(checkpoint) for checkpoint in checkpoints]
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

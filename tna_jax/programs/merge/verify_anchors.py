"""Verifies that exported models share their anchors: the mask is drawn again from the recipe in the files' metadata."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tna_jax.io import manifest, restore
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor

if TYPE_CHECKING:
    from tna_jax.masks import AnchorRecipe

ABOUT = "tna_jax"
"""Name of the metadata that describes an exported model: a JSON object whose `mask` holds kind, ratio, seed and where."""
PART = "params/"
"""Parameters are named with it in exported files; the rest is state, which has no anchors."""
FIELDS = ("kind", "ratio", "seed", "where")
"""What of a recipe says which entries are anchored."""


def read_recipe(checkpoint: Checkpoint) -> "AnchorRecipe | None":
    """Returns the recipe of the mask in a file's metadata; None if there is none, none that is known here, or no fixed anchors."""
    texts = next(iter(checkpoint.metadata.values()))
    if ABOUT not in texts:
        return None
    from tna_jax.masks import AnchorRecipe  # JAX, which a plain merge does without

    try:
        entry = json.loads(texts[ABOUT])["mask"]
        recipe = AnchorRecipe(soft=entry.get("soft"), **{key: entry[key] for key in FIELDS})
        return recipe if 0 < recipe.ratio < 1 and recipe.soft is None else None  # soft anchors move: nothing is equal
    except (KeyError, TypeError, ValueError):
        return None


def verify(checkpoints: list[Checkpoint]) -> dict[str, Any] | None:
    """Returns the recipe and the number of anchored entries, if all models have the same recipe and equal anchors; None without one.

    Raises:
      UsageError: the recipes are the same, but anchored entries differ (models of different initial values, say); every
        tensor is named.
    """
    recipes = [read_recipe(checkpoint) for checkpoint in checkpoints]
    first = recipes[0]
    if first is None or any(other != first for other in recipes):
        return None
    import jax

    tensors = {name: t for name, t in checkpoints[0].tensors.items() if name.startswith(PART)}
    shapes = {name.removeprefix(PART): jax.ShapeDtypeStruct(t.shape, np.float32) for name, t in tensors.items()}
    mask = manifest.named(first.draw(restore.nested(shapes)))
    anchored, wrong = 0, []
    for name in tensors:
        fixed = ~np.asarray(mask[name.removeprefix(PART)]).reshape(-1)
        anchored += int(fixed.sum())
        values = [_bits(checkpoint.tensors[name])[fixed] for checkpoint in checkpoints]
        differ = sum(int((other != values[0]).sum()) for other in values[1:])
        if differ:
            wrong.append(f"{name} ({differ} entries)")
    if wrong:
        raise UsageError(
            f"the files say that their anchors are shared (mask ratio {first.ratio:g}, seed {first.seed}), but they "
            f"differ in {', '.join(wrong)}: models of other initial values, or changed after training"
        )
    return {**{field: getattr(first, field) for field in FIELDS}, "anchored": anchored}


def files_of(tensor: Tensor) -> list[Path]:
    """Returns the files that a tensor is read from: several for one that an adapter is folded into, its own of one in another order."""
    if isinstance(source := getattr(tensor, "source", None), Tensor):
        return files_of(source)
    factors = [part for part in (getattr(tensor, "a", None), getattr(tensor, "b", None)) if part is not None]
    return [tensor.file, *(part.file for part in factors)]


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.read().reshape(-1).view(f"u{tensor.dtype.itemsize}")

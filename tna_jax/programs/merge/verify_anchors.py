"""Verifies that exported models share their anchors: the mask is drawn again from the recipe in the files' metadata."""

import json
from typing import Any

import jax
import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.options import DRAWS

ABOUT = "tna_jax"
"""Name of the metadata that describes an exported model: a JSON object whose `mask` holds kind, ratio, seed and where."""
PART = "params/"
"""Parameters are named with it in exported files; the rest is state, which has no anchors."""


def recipe(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The mask's recipe in a file's metadata; None if there is none, or none that is known here."""
    try:
        found = json.loads(next(iter(checkpoint.metadata.values()))[ABOUT])["mask"]
        whole = found["kind"] in DRAWS and 0 < found["ratio"] < 1 and isinstance(found["seed"], int)
        whole = whole and found.get("soft") is None  # soft anchors move: nothing is equal
        return {key: found[key] for key in ("kind", "ratio", "seed", "where")} if whole else None
    except (KeyError, TypeError, ValueError):
        return None


def verify(checkpoints: list[Checkpoint]) -> dict[str, Any] | None:
    """The recipe and the number of anchored entries, if all models have the same recipe and equal anchors; None without one.

    Raises:
      UsageError: the recipes are the same, but anchored entries differ (models of different initial values, say); every
        tensor is named.
    """
    recipes = [recipe(checkpoint) for checkpoint in checkpoints]
    first = recipes[0]
    if first is None or any(other != first for other in recipes):
        return None
    tensors = {name: t for name, t in checkpoints[0].tensors.items() if name.startswith(PART)}
    shapes: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *levels, last = name.removeprefix(PART).split("/")
        inner = shapes
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = jax.ShapeDtypeStruct(tensor.shape, np.float32)
    mask = DRAWS[first["kind"]](stream(first["seed"], Stream.RUN_MASK), shapes, first["ratio"], first["where"])
    anchored, wrong = 0, []
    for name in tensors:
        inner = mask
        for level in name.removeprefix(PART).split("/"):
            inner = inner[level]
        fixed = ~np.asarray(inner).reshape(-1)
        anchored += int(fixed.sum())
        values = [_bits(checkpoint.tensors[name])[fixed] for checkpoint in checkpoints]
        differ = sum(int((other != values[0]).sum()) for other in values[1:])
        if differ:
            wrong.append(f"{name} ({differ} entries)")
    if wrong:
        raise UsageError(
            f"the files say that their anchors are shared (mask ratio {first['ratio']:g}, seed {first['seed']}), but they "
            f"differ in {', '.join(wrong)}: models of other initial values, or changed after training"
        )
    return {**first, "anchored": anchored}


def _bits(tensor: Tensor) -> np.ndarray:
    kind = np.dtype(f"u{tensor.dtype.itemsize}")
    return np.fromfile(tensor.file, kind, tensor.size, offset=tensor.start)

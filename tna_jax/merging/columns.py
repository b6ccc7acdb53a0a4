"""The leaves of M models and their base side by side, on the host, checked to fit each other."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.masks.operations import Mask, Params, is_anchored
from tna_jax.merging.method import Array
from tna_jax.merging.tensors import is_floating


@dataclasses.dataclass(frozen=True)
class Column:
    """One leaf of every model."""

    name: str
    """Its path, `Dense_0/kernel`."""
    models: list[Array]
    """M arrays (...) of one dtype."""
    base: Array | None
    """(...), or `None` without a base."""
    anchored: Array | None
    """(...) bool, which entries the mask anchors; `None` without a mask."""

    @property
    def is_merged(self) -> bool:
        """Whether it has entries to merge: real numbers."""
        return is_floating(self.models[0].dtype) and self.models[0].size > 0


def columns_of(models: Sequence[Params], base: Params | None = None, mask: Mask | None = None) -> list[Column]:
    """Returns the columns in the leaf order of the first model.

    Raises:
      ValueError: no models, or paths, shapes or dtypes that differ, or complex numbers; all such paths are listed.
    """
    if not models:
        raise ValueError("there are no models to merge")
    named = {f"model {i}": model for i, model in enumerate(models)} | ({} if base is None else {"base": base})
    aligned = [trees.align(tree, models[0], what="first model", subject=name) for name, tree in named.items()]
    paths = [trees.name(path) for path, _ in trees.named_leaves(models[0])]
    arrays = [[np.asarray(leaf) for leaf in column] for column in zip(*aligned, strict=True)]
    wrong = [
        f"{path} ({', '.join(f'{name} {a.dtype}{list(a.shape)}' for name, a in zip(named, column, strict=True))})"
        for path, column in zip(paths, arrays, strict=True)
        if len({(array.dtype, array.shape) for array in column}) > 1 or np.iscomplexobj(column[0])
    ]
    if wrong:
        raise ValueError(f"models are merged in one real dtype and shape; these leaves differ: {'; '.join(wrong)}")
    anchored: list[Array | None] = [None] * len(paths)
    if mask is not None:
        parts = trees.align(mask, models[0])
        anchored = [np.broadcast_to(is_anchored(m), c[0].shape) for m, c in zip(parts, arrays, strict=True)]
    return [
        Column(path, column[: len(models)], None if base is None else column[-1], keep)
        for path, column, keep in zip(paths, arrays, anchored, strict=True)
    ]


def like(model: Params, leaves: list[Any]) -> Params:
    """Returns a tree like `model` of host arrays, JAX arrays where `model` holds JAX arrays."""
    firsts = [leaf for _, leaf in trees.named_leaves(model)]
    return trees.like(
        model,
        [
            jnp.asarray(leaf) if isinstance(first, jax.Array) else leaf
            for first, leaf in zip(firsts, leaves, strict=True)
        ],
    )

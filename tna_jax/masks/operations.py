"""What a mask is, and what is asked of one whoever drew it: its complement, its soft form, its share of anchors."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import sharding, trees
from tna_jax.trees import Tree

Mask = Tree
"""A pytree like the parameters with bool leaves (`True` = trainable) or float leaves in [0, 1] (soft anchors)."""

Params = Tree
"""A pytree of floating-point arrays."""

Masked = TypeVar("Masked")
"""The type of a mask, which its complement has too."""


def soft(mask: Masked, multiplier: float) -> Masked:
    """Turns anchors into soft ones: `False` becomes `multiplier`, `True` becomes 1 (float32 leaves).

    Raises:
      ValueError: `multiplier` outside [0, 1].
      TypeError: `mask` is not a bool mask.
    """
    if not 0 <= multiplier <= 1:
        raise ValueError(f"the multiplier of soft anchors must lie in [0, 1], got {multiplier}")
    _require_bool(mask)
    multipliers: Masked = jax.tree.map(lambda m: sharding.where(m, np.float32(1), np.float32(multiplier)), mask)
    return multipliers


def complement(mask: Masked) -> Masked:
    """Swaps anchored and trainable entries (soft: `1 - m`). Law: `complement(complement(m)) == m` for bool masks."""
    swapped: Masked = jax.tree.map(lambda m: ~jnp.asarray(m) if jnp.asarray(m).dtype == bool else 1 - m, mask)
    return swapped


def anchored_ratio(mask: Mask) -> jax.Array:
    """Computes the share of anchored entries (`False`, or a multiplier below 1) over the whole tree: a float32 scalar in [0, 1].

    Raises:
      ValueError: a mask without entries.
    """
    leaves = jax.tree.leaves(mask)
    total = sum(np.size(m) for m in leaves)
    if total == 0:
        raise ValueError("an empty mask has no ratio")
    counts = [jnp.sum(is_anchored(m), dtype=jnp.int32).astype(jnp.float32) for m in leaves]
    return sum(counts, start=jnp.float32(0)) / np.float32(total)


def is_anchored(mask_leaf: jax.Array | np.ndarray | bool | float) -> jax.Array:
    """Returns which entries of a leaf of a mask are anchored, softly or not: bool, of its shape."""
    m = jnp.asarray(mask_leaf)
    return ~m if m.dtype == bool else m < 1


def _require_bool(mask: Mask) -> None:
    bad = [trees.name(path) for path, m in trees.named_leaves(mask) if jnp.asarray(m).dtype != bool]
    if bad:
        raise TypeError(f"expected a bool mask, but these leaves are not bool: {', '.join(bad)}")

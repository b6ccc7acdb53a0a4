"""Freezing whole leaves: the mask that anchors them, and the trees without them, of which gradients and moments are taken."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from tna_jax import trees
from tna_jax.masks.operations import Mask
from tna_jax.trees import PathFilter

Held = TypeVar("Held")
"""The type of a tree of parameters, which the tree without its frozen leaves has too."""


def is_frozen(tree: Mask, freeze: PathFilter | None) -> list[bool]:
    """Returns for every leaf, in the order of `jax.tree.leaves`, whether `freeze` selects its path.

    Args:
      tree: any pytree; its leaves are not read.
      freeze: a regular expression searched in the path (`body/words/embedding`), or a predicate of it; None selects nothing.

    Raises:
      ValueError: `freeze` selects no leaf (the paths are listed), or is not a regular expression.
    """
    paths = [path for path, _ in trees.named_leaves(tree)]
    if freeze is None:
        return [False] * len(paths)
    selected = trees.selector(freeze, paths, "freeze")
    return [selected(path) for path in paths]


def freeze(mask: Mask, where: PathFilter | None) -> Mask:
    """Anchors every entry of the leaves that `where` selects; the other leaves of the mask stay as they are.

    Args:
      mask: bool or float leaves, with a leading axis for members or without one; of a float leaf the multipliers become 0.
      where: as `freeze` in `is_frozen`; None freezes nothing.

    Raises:
      ValueError: as `is_frozen`.

    >>> import jax.numpy as jnp
    >>> freeze({"words": jnp.ones((3, 2), bool), "head": jnp.ones(2, bool)}, "words")["words"].any()
    Array(False, dtype=bool)
    """
    pairs = zip(jax.tree.leaves(mask), is_frozen(mask, where), strict=True)
    leaves = [jnp.zeros_like(m) if frozen else m for m, frozen in pairs]
    return trees.like(mask, leaves)


def without_frozen(tree: Held, freeze: PathFilter | None) -> Held:
    """Returns the tree with `optax.MaskedNode()`, which has no leaves, in the place of every leaf that `freeze` selects."""
    if freeze is None:
        return tree
    pairs = zip(jax.tree.leaves(tree), is_frozen(tree, freeze), strict=True)
    return trees.like(tree, [optax.MaskedNode() if frozen else leaf for leaf, frozen in pairs])


def with_frozen(trained: Held, tree: Held, freeze: PathFilter | None) -> Held:
    """Returns `tree` with the leaves of `trained`, a tree of `without_frozen`, in the place of its own that are not frozen."""
    if freeze is None:
        return trained
    rest = iter(jax.tree.leaves(trained))
    pairs = zip(jax.tree.leaves(tree), is_frozen(tree, freeze), strict=True)
    return trees.like(tree, [leaf if frozen else next(rest) for leaf, frozen in pairs])

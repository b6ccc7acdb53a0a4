"""Masks as bits, for files: an eighth of the bytes of a mask of bools. (A mask that was drawn needs none: its `AnchorRecipe` says all.)"""

import math

import jax
import numpy as np

from tna_jax import trees
from tna_jax.masks.operations import Mask, Params


def to_bits(mask: Mask) -> Mask:
    """Returns a mask as bits: a pytree like it whose leaves are NumPy's uint8, of ceil(entries / 8) each, the first entry in the lowest bit.

    Law: `from_bits(to_bits(mask), mask)` is the mask.

    Args:
      mask: bool leaves of any shape.

    Raises:
      TypeError: leaves that are not bool (soft anchors).

    Example:
      >>> to_bits({"w": np.array([True, False, True])})["w"].tolist()
      [5]
    """
    other = [
        f"{trees.name(path)} ({np.asarray(leaf).dtype})"
        for path, leaf in trees.named_leaves(mask)
        if np.asarray(leaf).dtype != bool
    ]
    if other:
        raise TypeError(f"to_bits takes masks of bools, and these leaves are not: {', '.join(other)}")
    packed: Mask = jax.tree.map(lambda leaf: np.packbits(np.asarray(leaf).reshape(-1), bitorder="little"), mask)
    return packed


def from_bits(bits: Mask, like: Params) -> Mask:
    """Returns the mask of `to_bits`: bool leaves of NumPy, of the structure and shapes of `like`.

    The bits hold no shapes: a leaf of another shape with as many entries, up to the last byte, takes them in its own order.

    Args:
      bits: what `to_bits` returned, or a tree of any framework with the same paths, read from a file.
      like: parameters, a mask, or shapes.

    Raises:
      ValueError: paths or numbers of entries that do not fit; all are listed.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(like)]
    flat = trees.like(like, [jax.ShapeDtypeStruct((-(-math.prod(shape) // 8),), np.uint8) for shape in shapes])
    aligned = [np.asarray(leaf) for leaf in trees.align(bits, flat, what="bits of such parameters", subject="bits")]
    other = sorted({str(leaf.dtype) for leaf in aligned} - {"uint8"})
    if other:
        raise ValueError(f"from_bits takes what to_bits returned, leaves of uint8, got {', '.join(other)}")
    leaves = [
        np.unpackbits(leaf, count=math.prod(shape), bitorder="little").astype(bool).reshape(shape)
        for leaf, shape in zip(aligned, shapes, strict=True)
    ]
    return trees.like(like, leaves)

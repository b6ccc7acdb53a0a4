"""Masks as bits, for files: an eighth of the bytes of a mask of bools. (A mask that was drawn needs none: its `AnchorRecipe` says all.)"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tna_jax import trees
from tna_jax.masks.operations import Mask, Params

MARK = 4
"""Bytes behind the bits of a leaf, by which its shape is known again: the bits alone would fit any other of as many entries."""


def to_bits(mask: Mask) -> Mask:
    """Returns a mask as bits: a pytree like it whose leaves are NumPy's uint8.

    A leaf has ceil(entries / 8) bytes, the first entry in the lowest bit, and `MARK` bytes for its shape: the first of the sha256 of
    its sizes with commas between them.

    Law: `from_bits(to_bits(mask), mask)` is the mask.

    Args:
      mask: bool leaves of any shape.

    Raises:
      TypeError: leaves that are not bool (soft anchors).

    Example:
      >>> to_bits({"w": np.array([True, False, True])})["w"][:1].tolist()
      [5]
    """
    other = [
        f"{trees.name(path)} ({np.asarray(leaf).dtype})"
        for path, leaf in trees.named_leaves(mask)
        if np.asarray(leaf).dtype != bool
    ]
    if other:
        raise TypeError(f"to_bits takes masks of bools, and these leaves are not: {', '.join(other)}")
    packed: Mask = jax.tree.map(_packed, mask)
    return packed


def from_bits(bits: Mask, like: Params) -> Mask:
    """Returns the mask of `to_bits`: bool leaves of NumPy, of the structure and shapes of `like`.

    Bits without the bytes for their shapes, as earlier versions wrote them, are taken if their numbers of entries fit.

    Args:
      bits: what `to_bits` returned, or a tree of any framework with the same paths, read from a file.
      like: parameters, a mask, or shapes.

    Raises:
      ValueError: paths, numbers of entries or shapes that do not fit; all are listed.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(like)]
    sizes = [-(-math.prod(shape) // 8) for shape in shapes]
    held = sum(np.size(leaf) for leaf in jax.tree.leaves(bits))
    mark = 0 if held == sum(sizes) else MARK
    flat = trees.like(like, [jax.ShapeDtypeStruct((size + mark,), np.uint8) for size in sizes])
    aligned = [np.asarray(leaf) for leaf in trees.align(bits, flat, what="bits of such parameters", subject="bits")]
    other = sorted({str(leaf.dtype) for leaf in aligned} - {"uint8"})
    if other:
        raise ValueError(f"from_bits takes what to_bits returned, leaves of uint8, got {', '.join(other)}")
    names = [trees.name(path) for path, _ in trees.named_leaves(like)]
    wrong = [
        f"{name} {shape}"
        for name, shape, size, leaf in zip(names, shapes, sizes, aligned, strict=True)
        if mark and not np.array_equal(leaf[size:], _mark(shape))
    ]
    if wrong:
        raise ValueError(f"the bits are of a mask of other shapes than these parameters: {', '.join(wrong)}")
    leaves = [
        np.unpackbits(leaf, count=math.prod(shape), bitorder="little").astype(bool).reshape(shape)
        for leaf, shape in zip(aligned, shapes, strict=True)
    ]
    return trees.like(like, leaves)


def _packed(leaf: Any) -> np.ndarray:
    bits = np.packbits(np.asarray(leaf).reshape(-1), bitorder="little")
    return np.concatenate([bits, _mark(np.shape(leaf))])


def _mark(shape: Sequence[int]) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(",".join(map(str, shape)).encode()).digest()[:MARK], np.uint8)

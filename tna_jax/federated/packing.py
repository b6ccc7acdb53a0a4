"""Only live entries travel: a pytree under a mask as one vector for each dtype, and back, bit for bit.

In a round of FedPFN (arXiv 2402.01342) the anchored entries are equal on all sides, and both sides can draw the mask from
its seed. So a message needs the `1 - ratio` live entries alone: the sender packs them, the receiver puts them into the copy
it has. The form of the message (one vector for each dtype, leaves in the order of their paths) is a choice of this project.

    packed = pack(params, mask)                       # {"float32": (n,)}
    params = unpack(packed, receivers_params, mask)  # anchored entries are the receiver's, live ones the sender's

Laws: `unpack(pack(t, m), t, m)` is `t`; `unpack(pack(a, m), b, m)` is `a` where `m` is live and `b` elsewhere; all bit for
bit, NaN payloads, negative zeros and subnormals too. Works on the host, in NumPy.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.masks import Mask
from tna_jax.trees import KeyPath, Tree

Packed = dict[str, np.ndarray]
"""Vectors (n,) by the name of their dtype (`"float32"`, `"bfloat16"`), names in alphabetical order; none without entries."""


def pack(tree: Tree, mask: Mask | None = None) -> Packed:
    """Returns the live entries of `tree`, one vector for each dtype; anchored entries are left out.

    Args:
      tree: arrays of any shape and dtype.
      mask: bool (`True` = live) or soft mask (live where the multiplier is above 0) of the same paths; a leaf of shape `()`
        stands for its whole partner. `None`: everything is live.

    Raises:
      ValueError: the mask does not fit the tree (all paths listed).
      TypeError: leaves that are no plain arrays, typed PRNG keys say (all listed).
    """
    parts: dict[str, list[np.ndarray]] = {}
    for leaf, live in _entries(tree, mask):
        if chosen := _count(leaf, live):
            values = leaf.ravel() if chosen == leaf.size else leaf[np.broadcast_to(live, leaf.shape)]
            parts.setdefault(str(leaf.dtype), []).append(values)
    return {dtype: np.concatenate(parts[dtype]) for dtype in sorted(parts)}


def unpack(packed: Packed, receiver: Tree, mask: Mask | None = None) -> Tree:
    """Returns the receiver's tree with its live entries replaced by the packed ones; anchored entries stay the receiver's.

    Args:
      packed: as `pack` makes it, under the same mask.
      receiver: arrays of the sender's paths, shapes and dtypes.
      mask: as in `pack`.

    Returns:
      A tree like `receiver`; its leaves are new NumPy arrays.

    Raises:
      ValueError: vectors that are missing, not expected, or of another dtype, length or number of axes; all are listed. Or as
        `pack`.
      TypeError: as `pack`.
    """
    if problems := misfits(packed, receiver, mask):
        raise ValueError(f"what was sent does not fit the receiver: {'; '.join(problems)}")
    filled: dict[KeyPath, np.ndarray] = {}
    position = dict.fromkeys(packed, 0)
    for path, (leaf, live) in zip(_order(receiver), _entries(receiver, mask), strict=True):
        new, count, dtype = leaf.copy(), _count(leaf, live), str(leaf.dtype)
        if count:
            values = packed[dtype][position[dtype] : position[dtype] + count]
            new[np.broadcast_to(live, leaf.shape)] = values
            position[dtype] += count
        filled[path] = new
    return trees.like(receiver, [filled[path] for path, _ in trees.named_leaves(receiver)])


def lengths(tree: Tree, mask: Mask | None = None) -> dict[str, int]:
    """Counts the live entries of each dtype: the lengths of the vectors of `pack`, nothing is copied.

    `tree` may hold shapes (`jax.eval_shape`). Raises as `pack`.
    """
    counts: dict[str, int] = {}
    for leaf, live in _entries(tree, mask, shapes=True):
        counts[str(leaf.dtype)] = counts.get(str(leaf.dtype), 0) + _count(leaf, live)
    return {dtype: counts[dtype] for dtype in sorted(counts) if counts[dtype]}


def payload_bytes(tree: Tree, mask: Mask | None = None) -> int:
    """Returns the bytes of the vectors of `pack`."""
    return sum(count * np.dtype(dtype).itemsize for dtype, count in lengths(tree, mask).items())


def misfits(packed: Packed, receiver: Tree, mask: Mask | None = None) -> list[str]:
    """Returns what `unpack` would refuse, a phrase for each dtype; empty where it fits."""
    expected = lengths(receiver, mask)
    problems = []
    for dtype in sorted({*expected, *packed}):
        vector = packed.get(dtype)
        if vector is None:
            problems.append(f"{dtype}: missing, {expected[dtype]} live entries expected")
        elif dtype not in expected:
            problems.append(f"{dtype}: not expected ({np.size(vector)} entries)")
        elif str(vector.dtype) != dtype or vector.shape != (expected[dtype],):
            problems.append(f"{dtype}: {vector.dtype} of shape {vector.shape}, expected ({expected[dtype]},)")
    return problems


def _order(tree: Tree) -> list[KeyPath]:
    """The paths as they are packed: sorted, so that the frameworks' own leaf orders do not matter."""
    return sorted(path for path, _ in trees.named_leaves(tree))


def _entries(tree: Tree, mask: Mask | None, shapes: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each leaf and which of its entries are live (bool, its shape or `()`), in the order of the paths."""
    named = trees.named_leaves(tree)
    strange = [
        f"{trees.name(path)} ({getattr(leaf, 'dtype', type(leaf).__name__)})" for path, leaf in named if _odd(leaf)
    ]
    if strange:
        raise TypeError(f"only plain arrays can be packed, these are not: {', '.join(strange)}")
    aligned = [np.True_] * len(named) if mask is None else trees.align(mask, tree, what="tree")
    masks = [np.asarray(m) if np.asarray(m).dtype == bool else np.asarray(m) > 0 for m in aligned]
    entries = {
        path: (leaf if shapes else np.asarray(leaf), chosen) for (path, leaf), chosen in zip(named, masks, strict=True)
    }
    return [entries[path] for path in sorted(entries)]


def _odd(leaf: object) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return not hasattr(leaf, "shape") or dtype is None or dtype == object or jnp.issubdtype(dtype, jax.dtypes.extended)


def _count(leaf: np.ndarray, live: np.ndarray) -> int:
    size = int(np.prod(leaf.shape, dtype=np.int64))
    return size * bool(live) if live.shape == () else int(np.count_nonzero(live))

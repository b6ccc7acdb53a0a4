"""Where the trainable entries of an array lie, and the two moves that follow: packing them together, and spreading them out again.

A packed array has the rank of its parameter and, over a mesh, its layout: each device packs its own block, and all blocks take the
slots of the largest. Slots and entries find each other by two small tables instead of an index of four bytes an entry:

- `offsets` and `bases` say which entry a slot holds: a base for every group of slots, and one or two bytes a slot from there;
- `bits` and `ranks` say which slot an entry has: one bit an entry, and for every 32 entries how many slots come before.

At half of the entries anchored both take 0.8 bytes an entry, where a moment of Adam takes 4.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import NamedSharding

from tna_jax import sharding
from tna_jax.placement import to_host

WORD = 32
"""Entries that share one word of `bits` and one of `ranks`."""


@struct.dataclass
class PackedLeaf:
    """The tables of one parameter; all are arrays of its rank and layout, the last axis longer or shorter.

    Attributes:
      bits: uint32, one bit for each of 32 entries, 1 = trainable; `None` where all are.
      ranks: int32, the number of slots before each word of `bits`; `None` where nothing is packed.
      offsets: uint8 or uint16, for each slot, how far its entry lies behind the base of its group; `None` where nothing is packed.
      bases: int32, for each group of slots, the first entry.
      shape: the parameter's shape.
      layout: its layout over a mesh, `None` without one.
    """

    bits: Any = None
    ranks: Any = None
    offsets: Any = None
    bases: Any = None
    shape: tuple[int, ...] = struct.field(pytree_node=False, default=())  # type: ignore[no-untyped-call]
    layout: NamedSharding | None = struct.field(pytree_node=False, default=None)  # type: ignore[no-untyped-call]

    @property
    def packs(self) -> bool:
        """Whether anchored entries are left out; else they are kept, with updates of zero."""
        return self.offsets is not None


def packed_leaf(mask: np.ndarray, param: Any, bytes_a_slot: float) -> PackedLeaf:
    """Returns the tables of one parameter, packed where that saves memory.

    Args:
      mask: bool, of the parameter's shape, `True` = trainable.
      param: the parameter; its layout counts, not its values.
      bytes_a_slot: what the optimizer keeps for an entry, in bytes.

    Raises:
      ValueError: a block of more than 2^31 - 1 entries.
    """
    layout = sharding.sharding_of(param) if mask.ndim else None
    if mask.all():
        return PackedLeaf(shape=mask.shape, layout=layout)
    blocks = _blocks(mask, layout)
    if blocks.shape[-1] >= 2**31:
        raise ValueError(f"a block of {blocks.shape[-1]:,} entries: compact packs blocks of fewer than 2^31")
    bits = _words(blocks)
    tables = {"bits": _put(bits, blocks, layout, mask)}
    counts = blocks.sum(-1)
    slots = max(int(counts.max()), 1)  # empty arrays have programs of their own
    width, group = _grouping(blocks, slots, bytes_a_slot)
    groups = -(-slots // group)
    packed = groups * (group * (bytes_a_slot + width) + 4) + 4 * bits.shape[-1]
    if mask.ndim and packed < blocks.shape[-1] * bytes_a_slot:
        before = np.cumsum(np.bitwise_count(bits), axis=-1, dtype=np.int32)
        ranks = np.concatenate([np.zeros_like(before[..., :1]), before[..., :-1]], axis=-1)
        offsets, bases = _offsets(blocks, groups, group, np.uint8 if width == 1 else np.uint16)
        for name, table in (("ranks", ranks), ("offsets", offsets), ("bases", bases)):
            tables[name] = _put(table, blocks, layout, mask)
    return PackedLeaf(**tables, shape=mask.shape, layout=layout)


def pack(leaf: PackedLeaf, array: jax.Array) -> jax.Array:
    """Returns the trainable entries of an array of the parameter's shape, in its dtype: in slots, or in their places beside zeros."""
    if leaf.bits is None:
        return array
    if not leaf.packs:
        return _on_blocks(_keep_trainable, leaf, (array, leaf.bits))
    return _on_blocks(_gather, leaf, (array, leaf.offsets, leaf.bases))


def unpack(leaf: PackedLeaf, packed: jax.Array, like: jax.Array) -> jax.Array:
    """Returns updates of the shape of `like`: those of the slots in their entries' places, and the negative zero for anchors."""
    if leaf.bits is None:
        return packed
    if not leaf.packs:
        return _on_blocks(_zero_anchored, leaf, (packed, leaf.bits))
    return _on_blocks(_spread, leaf, (packed, leaf.bits, leaf.ranks, like))


def mask_of(leaf: PackedLeaf) -> np.ndarray:
    """Returns the mask that the tables of a parameter were made from: bool, of its shape, `True` = trainable."""
    if leaf.bits is None:
        return np.ones(leaf.shape, bool)
    block = leaf.shape if leaf.layout is None else leaf.layout.shard_shape(leaf.shape)
    grid = tuple(size // part if part else 1 for size, part in zip(leaf.shape, block, strict=True))
    words = np.ascontiguousarray(to_host(leaf.bits)).reshape(*grid, -1).astype("<u4")
    flat = np.unpackbits(words.view(np.uint8), axis=-1, count=int(np.prod(block)), bitorder="little").astype(bool)
    order = [axis for pair in zip(range(len(grid)), range(len(grid), 2 * len(grid)), strict=True) for axis in pair]
    return flat.reshape(*grid, *block).transpose(order).reshape(leaf.shape)


def _keep_trainable(array: jax.Array, bits: jax.Array) -> jax.Array:
    return jnp.where(_chosen(bits, array.shape), array, jnp.zeros_like(array))


def _zero_anchored(array: jax.Array, bits: jax.Array) -> jax.Array:
    return jnp.where(_chosen(bits, array.shape), array, -jnp.zeros_like(array))


def _gather(array: jax.Array, offsets: jax.Array, bases: jax.Array) -> jax.Array:
    entries = (bases.reshape(-1, 1) + offsets.reshape(bases.size, -1).astype(jnp.int32)).reshape(-1)
    return array.reshape(-1).at[entries].get(mode="promise_in_bounds").reshape(offsets.shape)


def _spread(packed: jax.Array, bits: jax.Array, ranks: jax.Array, like: jax.Array) -> jax.Array:
    below = (jnp.uint32(1) << _lanes()) - 1
    before = jax.lax.population_count(bits.reshape(-1, 1) & below).astype(jnp.int32)
    slots = jnp.minimum(ranks.reshape(-1, 1) + before, packed.size - 1).reshape(-1)[: like.size]
    values = packed.reshape(-1).at[slots].get(mode="promise_in_bounds").reshape(like.shape)
    return jnp.where(_chosen(bits, like.shape), values, -jnp.zeros_like(values))


def _chosen(bits: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    each = (bits.reshape(-1, 1) >> _lanes()) & 1
    return each.reshape(-1)[: int(np.prod(shape))].reshape(shape).astype(bool)


def _lanes() -> jax.Array:
    return jnp.arange(WORD, dtype=jnp.uint32).reshape(1, WORD)


def _on_blocks(function: Any, leaf: PackedLeaf, arrays: tuple[jax.Array, ...]) -> jax.Array:
    """Applies a function to the blocks that each device holds."""
    result: jax.Array
    if leaf.layout is None:
        result = function(*map(jnp.asarray, arrays))
        return result
    spec = leaf.layout.spec
    mapped = jax.shard_map(function, mesh=leaf.layout.mesh, in_specs=(spec,) * len(arrays), out_specs=spec)
    result = mapped(*arrays)
    return result


def _blocks(mask: np.ndarray, layout: NamedSharding | None) -> np.ndarray:
    """The mask as its blocks over the mesh, each flat: of shape (blocks along each axis..., entries of a block)."""
    block = mask.shape if layout is None else layout.shard_shape(mask.shape)
    grid = tuple(size // part if part else 1 for size, part in zip(mask.shape, block, strict=True))
    parts = mask.reshape([n for pair in zip(grid, block, strict=True) for n in pair])
    order = [*range(0, 2 * mask.ndim, 2), *range(1, 2 * mask.ndim, 2)]
    return parts.transpose(order).reshape(*grid, int(np.prod(block)))


def _words(blocks: np.ndarray) -> np.ndarray:
    words = -(-blocks.shape[-1] // WORD)
    padded = np.zeros((*blocks.shape[:-1], words * WORD), bool)
    padded[..., : blocks.shape[-1]] = blocks
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4")


def _grouping(blocks: np.ndarray, slots: int, bytes_a_slot: float) -> tuple[int, int]:
    """The bytes of an offset, and the slots that share a base, with which all takes least memory."""
    furthest = {2**n: 0 for n in range(13)}
    for block in blocks.reshape(-1, blocks.shape[-1]):
        entries = np.flatnonzero(block)
        for group in furthest if len(entries) else ():
            last = entries[np.minimum(np.arange(group - 1, len(entries) + group - 1, group), len(entries) - 1)]
            furthest[group] = max(furthest[group], int((last - entries[::group]).max()))

    def cost(width: int, group: int) -> float:
        groups = -(-slots // group)
        return groups * (group * (bytes_a_slot + width) + 4)

    possible = [(width, group) for group, reach in furthest.items() for width in (1, 2) if reach < 256**width]
    return min(possible, key=lambda choice: cost(*choice))


def _offsets(blocks: np.ndarray, groups: int, group: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and bases of each block; slots beyond a block's own hold one of its entries a second time, and nobody reads them."""
    flat = blocks.reshape(-1, blocks.shape[-1])
    offsets = np.zeros((len(flat), groups * group), dtype)
    bases = np.zeros((len(flat), groups), np.int32)
    for row, block in enumerate(flat):
        entries = np.flatnonzero(block)
        firsts = entries[::group]
        bases[row, : len(firsts)] = firsts
        offsets[row, : len(entries)] = entries - np.repeat(firsts, group)[: len(entries)]
    grid = blocks.shape[:-1]
    return offsets.reshape(*grid, -1), bases.reshape(*grid, -1)


def _put(table: np.ndarray, blocks: np.ndarray, layout: NamedSharding | None, mask: np.ndarray) -> jax.Array:
    """A table of each block as one array of the parameter's rank and layout."""
    shape = (*blocks.shape[:-2], blocks.shape[-2] * table.shape[-1]) if mask.ndim else table.shape
    array = table.reshape(shape)
    placed: jax.Array = jnp.asarray(array) if layout is None else jax.device_put(array, layout)
    return placed

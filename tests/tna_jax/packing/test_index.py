"""The tables of a packed array find every trainable entry and nothing else, at any density, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.parameters import slow
from tna_jax.packing import index

KEY = jax.random.key(0)
SHAPES = [
    ((64, 48), 0.4),
    ((3, 3, 8, 16), 0.97),
    ((4000,), 0.6),
    ((70, 1000), 0.999),
    ((40, 40), 1.0),
    ((5, 7), 0.0),
    ((0, 3), 0.5),
]


def draw(shape, ratio, seed=0):
    return np.random.default_rng(seed).random(shape) >= ratio


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def there_and_back(leaves, arrays):
    packed = [index.pack(leaf, array) for leaf, array in zip(leaves, arrays, strict=True)]
    return packed, [index.unpack(*trio) for trio in zip(leaves, packed, arrays, strict=True)]


def check(leaves, masks, arrays):
    for leaf, mask in zip(leaves, masks, strict=True):
        np.testing.assert_array_equal(index.mask_of(leaf), mask)
    packed, back = there_and_back(leaves, arrays)
    for leaf, mask, array, slots, spread in zip(leaves, masks, arrays, packed, back, strict=True):
        array = np.asarray(array)
        expected = np.where(mask, array, np.float32(-0.0))
        assert np.asarray(spread).tobytes() == expected.tobytes()
        if leaf.packs and leaf.layout is None:
            assert slots.ndim == array.ndim
            np.testing.assert_array_equal(np.asarray(slots).reshape(-1)[: mask.sum()], array[mask])
        elif leaf.layout is None:
            np.testing.assert_array_equal(np.asarray(slots), np.where(mask, array, 0))


def test_entries_are_found_again_at_any_density():
    masks = [draw(shape, ratio) for shape, ratio in SHAPES]
    arrays = [np.random.default_rng(1).standard_normal(shape).astype(np.float32) for shape, _ in SHAPES]
    leaves = [index.packed_leaf(mask, array, 8.0) for mask, array in zip(masks, arrays, strict=True)]
    assert [leaf.packs for leaf in leaves] == [True] * 5 + [False] * 2
    assert [leaf.offsets.size for leaf in leaves[4:5]] == [1]
    check(leaves, masks, arrays)


def test_runs_and_holes_of_any_length():
    """Entries far from each other, nearer than they ever are by chance, and only at one end."""
    masks = [np.zeros(n, bool) for n in (70_000, 70_000, 70_000, 9_000)]
    masks[0][::7_000] = True
    masks[1][:300] = masks[1][-300:] = True
    masks[2][-1:] = True
    masks[3][::2] = True
    arrays = [np.arange(mask.size, dtype=np.float32) for mask in masks]
    check([index.packed_leaf(mask, array, 8.0) for mask, array in zip(masks, arrays, strict=True)], masks, arrays)


def test_a_few_anchors_are_not_worth_packing():
    """A bit an entry costs less than the tables, and Adam's moments are kept for all."""
    mask = draw((100, 100), 0.05)
    leaf = index.packed_leaf(mask, np.zeros(mask.shape, np.float32), 8.0)
    assert not leaf.packs and leaf.bits.nbytes == 1252
    assert index.packed_leaf(np.ones((3, 3), bool), np.zeros((3, 3), np.float32), 8.0).bits is None


@pytest.mark.parametrize("ratio", [0.4, *slow(0.2, 0.6, 0.8, 0.95)])
def test_tables_take_about_a_byte_an_entry(ratio):
    mask = draw((1000, 1000), ratio)
    leaf = index.packed_leaf(mask, np.zeros(mask.shape, np.float32), 8.0)
    tables = sum(table.nbytes for table in jax.tree.leaves(leaf))
    assert tables < 1.1 * mask.size
    assert leaf.offsets.size < mask.sum() + 64 + 4096  # slots beyond the entries: less than a group


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_each_device_packs_its_own_block(kind):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)
    layout = NamedSharding(mesh, PartitionSpec("x", "y"))
    mask = draw((64, 48), 0.4)
    mask[:16] = False  # a device without trainable entries
    values = np.random.default_rng(2).standard_normal(mask.shape).astype(np.float32)
    array = jax.device_put(jnp.asarray(values), layout)
    leaf = index.packed_leaf(mask, array, 8.0)
    packed, back = there_and_back([leaf], [array])
    assert packed[0].sharding.spec == back[0].sharding.spec == layout.spec
    assert packed[0].shape[0] == 4 and packed[0].shape[1] % 2 == 0
    check([leaf], [mask], [array])
    program = there_and_back.lower([leaf], [array]).compile().as_text()
    assert not any(word in program for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))

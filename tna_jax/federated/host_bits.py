"""Threefry in NumPy: the bits of `jax.random`, without a program compiled for every number of examples.

Deals out examples to clients on the host. The bits are those that JAX draws with partitionable keys; a test compares them.
"""

import jax
import numpy as np

from tna_jax import prng

Words = tuple[np.uint32, np.uint32]
"""A key."""
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
LARGEST = np.iinfo(np.uint32).max


def words(key: jax.Array) -> Words:
    """Returns the words of a JAX key."""
    first, second = prng.words(key)
    return np.uint32(first), np.uint32(second)


def fold_in(key: Words, data: int) -> Words:
    """Returns `jax.random.fold_in(key, data)`; `data` in [0, 2^32)."""
    first, second = threefry(key, np.zeros(1, np.uint32), np.array([data], np.uint32))
    return first[0], second[0]


def permutation(key: Words, size: int) -> np.ndarray:
    """Returns `jax.random.permutation(key, size)`: (size,) int64."""
    order = np.arange(size)
    for _ in range(int(np.ceil(3 * np.log(max(1, size)) / np.log(LARGEST)))):
        key, draw = fold_in(key, 0), fold_in(key, 1)
        order = order[np.argsort(bits(draw, size), kind="stable")]
    return order


def bits(key: Words, size: int) -> np.ndarray:
    """Returns `jax.random.bits(key, (size,))`: (size,) uint32."""
    counts = np.arange(size, dtype=np.uint64)
    first, second = threefry(key, (counts >> np.uint64(32)).astype(np.uint32), counts.astype(np.uint32))
    return np.asarray(first ^ second)


def threefry(key: Words, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes Threefry-2x32 with 20 rounds (Salmon et al. 2011) of counters (n,) uint32."""
    with np.errstate(over="ignore"):
        keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
        x, y = high + keys[0], low + keys[1]
        for turn in range(5):
            for rotation in ROTATIONS[turn % 2]:
                x = x + y
                y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
                y = x ^ y
            x = x + keys[(turn + 1) % 3]
            y = y + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y

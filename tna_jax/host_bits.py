"""Threefry in NumPy: the bits of `jax.random`, without a program compiled for every number of them.

For what is drawn once and is small: the keys of an ensemble, its masks, the examples of clients. The bits are those that JAX draws
with partitionable keys; tests compare them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import prng, sharding

Words = tuple[Any, Any]
"""A key, two numbers of uint32; or several, two arrays (n,) of them."""
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
LARGEST = np.iinfo(np.uint32).max
BLOCK = 1 << 14
"""Draws that are computed at once: they stay in the cache of a processor."""


def words(key: jax.Array) -> Words:
    """Returns the words of a JAX key."""
    first, second = prng.words(key)
    return np.uint32(first), np.uint32(second)


def fold_in(key: Words, data: int) -> Words:
    """Returns `jax.random.fold_in(key, data)`; `data` in [0, 2^32)."""
    first, second = threefry(key, np.zeros(1, np.uint32), np.array([data], np.uint32))
    return first[0], second[0]


def keys(words: np.ndarray) -> jax.Array:
    """Returns typed keys (...) of words (..., 2) uint32."""
    typed: jax.Array = jax.random.wrap_key_data(jnp.asarray(words, np.uint32), impl=prng.THREEFRY)
    return typed


def streams(seeds: Sequence[int], which: prng.Stream, indices: Sequence[int]) -> np.ndarray:
    """Returns the words (n, 2) uint32 of `prng.stream(seed, which, index)` for each seed and its index."""
    with sharding.no_mesh(), jax.ensure_compile_time_eval():
        roots = {seed: prng.words(prng.root_key(seed)) for seed in set(seeds)}
    first, second = np.array([roots[seed] for seed in seeds], np.uint32).T
    high = np.zeros(len(seeds), np.uint32)
    purpose = threefry((first, second), high, np.full(len(seeds), which.number, np.uint32))
    return np.stack(threefry(purpose, high, np.array(indices, np.uint32)), axis=-1)


def permutation(key: Words, size: int) -> np.ndarray:
    """Returns `jax.random.permutation(key, size)`: (size,) int64."""
    order = np.arange(size)
    for _ in range(int(np.ceil(3 * np.log(max(1, size)) / np.log(LARGEST)))):
        key, draw = fold_in(key, 0), fold_in(key, 1)
        order = order[np.argsort(bits(draw, size), kind="stable")]
    return order


def uniform(key: Words, size: int) -> np.ndarray:
    """Returns `jax.random.uniform(key, (size,))`: (size,) float32 in [0, 1)."""
    mantissa = bits(key, size) >> np.uint32(9)
    return (mantissa | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def bits(key: Words, size: int) -> np.ndarray:
    """Returns `jax.random.bits(key, (size,))`: (size,) uint32."""
    drawn = np.empty(size, np.uint32)
    for start in range(0, size, BLOCK):
        counts = np.arange(start, min(start + BLOCK, size), dtype=np.uint64)
        first, second = threefry(key, (counts >> np.uint64(32)).astype(np.uint32), counts.astype(np.uint32))
        np.bitwise_xor(first, second, out=drawn[start : start + BLOCK])
    return drawn


def threefry(key: Words, high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes Threefry-2x32 with 20 rounds (Salmon et al. 2011) of counters (n,) uint32, under one key or a key for each."""
    with np.errstate(over="ignore"):
        keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
        x, y = high + keys[0], low + keys[1]
        shifted = np.empty_like(y)
        for turn in range(5):
            for rotation in ROTATIONS[turn % 2]:
                x += y
                np.left_shift(y, np.uint32(rotation), out=shifted)
                y >>= np.uint32(32 - rotation)
                y |= shifted
                y ^= x
            x += keys[(turn + 1) % 3]
            y += keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x, y

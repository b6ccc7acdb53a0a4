"""A small network with all that an axis can hold: layers end to end, heads with units in one axis and in two, units beside positions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.matching.permutations import permutation_spec


@jax.jit
def network(p, x):
    """Outputs (B, 2) of inputs (B, 5)."""
    joined = jnp.concatenate([jnp.tanh(x @ p["left"]), jnp.tanh(x @ p["right"])], -1) @ p["joined"]  # (B, 12)
    heads = jnp.tanh(joined).reshape(-1, 3, 4)
    mixed = jnp.einsum("bhu,bgu->bhg", heads, heads) @ heads
    out = jnp.einsum("bhu,huo->bo", mixed, p["out"])  # (B, 6)
    image = jnp.tanh(jnp.concatenate([out[:, None], 2 * out[:, None]], 1)).reshape(len(x), 12)
    return jnp.tanh(jnp.tanh(image @ p["flat"]) @ p["middle"]) @ p["last"]


SHAPES = {
    "left": (5, 4), "right": (5, 7), "joined": (11, 12), "out": (3, 4, 6), "flat": (12, 8), "middle": (8, 9), "last": (9, 2),
}  # fmt: skip


def weights(seed):
    draws = np.random.default_rng(seed)
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@functools.cache
def traced():
    """The groups, and two sets of weights."""
    a, b = weights(0), weights(1)
    return permutation_spec(network, a, jax.ShapeDtypeStruct((4, 5), jnp.float32)), a, b

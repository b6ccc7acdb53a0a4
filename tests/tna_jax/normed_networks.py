"""A small network with BatchNorm for the tests of `repair` and of resets."""

import functools

import flax.linen as nn
import jax
import numpy as np

from tna_jax import networks

KEY = jax.random.key(0)
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compiles in half the time."""


def close(a, b, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), a, b)


def perturbed(params, seed, size=0.3):
    """Every leaf plus noise: biases that are not 0, scales that are not 1."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + generator.normal(0, size, leaf.shape).astype(np.float32), params)


class Normed(nn.Module):
    """Dense, BatchNorm without affine, ReLU; once or twice; then a head."""

    momentum: float = 0.9
    layers: int = 1

    @nn.compact
    def __call__(self, x, train=False, weight=None):
        mask = None if weight is None else weight.astype(bool)[:, None]
        for i in range(self.layers):
            x = nn.Dense(5, name=f"dense{i}")(x)
            options = {"use_bias": False, "use_scale": False, "momentum": self.momentum, "name": f"norm{i}"}
            x = nn.relu(nn.BatchNorm(not train, **options)(x, mask=mask))
        return nn.Dense(3, name="head")(x)


def normed(momentum=0.9, layers=1):
    net, init = networks.linen(Normed(momentum, layers), (4,))
    params, state = jax.jit(init)(KEY)
    return net, perturbed(params, 1), state


def some_inputs(count=10, scale=1.0):
    return np.random.default_rng(0).normal(0.5, 1, (count, 4)).astype(np.float32) * np.float32(scale)

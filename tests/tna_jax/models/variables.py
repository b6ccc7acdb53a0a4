"""Inputs and variables of networks, drawn without compiling anything."""

import jax
import jax.numpy as jnp
import numpy as np


def random_images(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_variables(model, x):
    """Values for every leaf, of about the initial ones' size (compiling `init` would take most of the tests' time)."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if path[-1].key == "kernel" else 0.1
        values = rng.normal(size=leaf.shape, scale=spread) + (path[-1].key in {"scale", "var"})
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(lambda: model.init(jax.random.key(0), x)))

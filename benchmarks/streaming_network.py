"""The network of `benchmarks.streaming`: means over patches and a hidden layer, so little to compute that reading is what takes the time."""

import jax
import jax.numpy as jnp

PATCH, HIDDEN, CLASSES = 16, 32, 10


def create(side=128):
    """Returns (network, init) for images (B, side, side, 3)."""
    inputs = (side // PATCH) ** 2 * 3

    def network(params, images):
        patches = images.reshape(-1, side // PATCH, PATCH, side // PATCH, PATCH, 3).mean((2, 4))
        hidden = jax.nn.relu(patches.reshape(len(images), inputs) @ params["hidden"])
        return hidden @ params["out"]

    def init(key):
        first, second = jax.random.split(key)
        hidden = jax.random.normal(first, (inputs, HIDDEN)) / jnp.sqrt(jnp.float32(inputs))
        return {
            "hidden": hidden,
            "out": jax.random.normal(second, (HIDDEN, CLASSES)) / jnp.sqrt(jnp.float32(HIDDEN)),
        }, ()

    return network, init

"""A regression network of one's own (Flax NNX). `tna train --model ./net.py:create --dataset ./diabetes.py:load --objective regression`."""

import jax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, features: int, width: int, rngs: nnx.Rngs):
        self.first = nnx.Linear(features, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns (B, 1) for features (B, features)."""
        return self.last(nnx.relu(self.second(nnx.relu(self.first(x)))))


def create(rngs: nnx.Rngs, features: int = 10, width: int = 64) -> Net:
    """Returns the network."""
    return Net(features, width, rngs)

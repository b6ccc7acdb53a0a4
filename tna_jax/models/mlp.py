"""The multi-layer perceptron of the paper's Figure 4 (arXiv 2402.01342): ReLU, `depth` hidden layers of `width` units."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """`depth` x (Dense, ReLU), then Dense to `num_classes` logits.

    Input (B, ...) floats, flattened; output (B, num_classes) float32. Layers are named Dense_0 ... Dense_{depth}.
    Parameter count for inputs of size d: (d + 1) w + (depth - 1)(w + 1) w + (w + 1) C; 159,010 for d = 784, depth 1, width 200.
    Initial values are Flax's defaults (LeCun normal kernels, zero biases). `dtype` is the compute dtype (None: float32);
    parameters are float32. `train` and `weight` are there for the common interface: no layer depends on them.
    """

    num_classes: int
    depth: int = 4
    width: int = 128
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        x = x.reshape(x.shape[0], -1).astype(self.dtype or jnp.float32)
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)

"""The multi-layer perceptron of the paper's Figure 4 (arXiv 2402.01342): ReLU, `depth` hidden layers of `width` units."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers

NORMS = ("none", "batch", "layer")


class MLP(nn.Module):
    """`depth` x (Dense, norm, ReLU), then Dense to `num_classes` logits.

    Input (B, ...) floats, flattened; output (B, num_classes) float32. Layers are named Dense_0 ... Dense_{depth}, norms, where there
    are any, norm_0 ... norm_{depth - 1}: none, batch or layer, see `tna_jax.models.layers.norm`. `weight` keeps padding out of the
    statistics of BatchNorm; `train` and `weight` change nothing else.
    Parameter count for inputs of size d: (d + 1) w + (depth - 1)(w + 1) w + (w + 1) C; 159,010 for d = 784, depth 1, width 200; norms
    have 2 w each. Initial values are Flax's defaults (LeCun normal kernels, zero biases). `dtype` is the compute dtype (None: float32);
    parameters are float32.

    Raises:
      ValueError: unknown norm.
    """

    num_classes: int
    depth: int = 4
    width: int = 128
    dtype: Any = None
    norm: str = "none"

    def __post_init__(self) -> None:
        layers.check_choice("norm of an mlp", self.norm, NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        x = x.reshape(x.shape[0], -1).astype(self.dtype or jnp.float32)
        for i in range(self.depth):
            x = nn.Dense(self.width, dtype=self.dtype)(x)
            x = nn.relu(layers.norm(self.norm, 1, self.dtype, train, weight, f"norm_{i}")(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)

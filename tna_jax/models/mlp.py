"""The multi-layer perceptron of the paper's Figure 4 (arXiv 2402.01342): ReLU, `depth` hidden layers of `width` units."""

import flax.linen as nn
import jax


class MLP(nn.Module):
    """`depth` x (Dense, ReLU), then Dense to `num_classes` logits.

    Input (B, ...) floats, flattened; output (B, num_classes) float32. Layers are named Dense_0 ... Dense_{depth}.
    Parameter count for inputs of size d: (d + 1) w + (depth - 1)(w + 1) w + (w + 1) C; 159,010 for d = 784, depth 1, width 200.
    Initial values are Flax's defaults (LeCun normal kernels, zero biases).
    """

    num_classes: int
    depth: int = 4
    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.num_classes)(x)

"""The small convolutional network: three convolutions, two dense layers.

After the CNN of arXiv 2402.01342; `norm` and `widen` are ours.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers, xla_cpu

WIDTHS = (32, 64, 64)  # of the convolutions; a max pool stands between them
DENSE = 64
LEAST_SIDE = 18  # 18 -conv- 16 -pool- 8 -conv- 6 -pool- 3 -conv- 1


class CNN(layers.ConvNet):
    """conv1, pool, conv2, pool, conv3, dense, head; ReLU after each but the head.

    Convolutions are 3x3, VALID, with bias; pools take the maximum of 2x2 (an odd last row or column is dropped, as VALID
    does); norm1 ... norm3, if any, stand between convolution and ReLU. `widen` multiplies the widths (32, 64, 64 and 64
    dense). Input (B, H, W, C) floats with sides of at least 18; output (B, num_classes) float32. Parameters for 32x32x3:
    122,570 with 10 classes, 128,420 with 100. Initial values are Flax's defaults (LeCun normal kernels, zero biases).

    Other fields and the errors at construction: see `ConvNet`.

    Raises:
      ValueError: images with a side below 18, at the call.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        conv, norm = layers.parts(self, train, weight)
        x = layers.images(x, self.dtype)
        if min(x.shape[1:3]) < LEAST_SIDE:
            raise ValueError(
                f"the CNN needs images with sides of at least {LEAST_SIDE}, got {x.shape[1]} x {x.shape[2]}"
            )
        for i, width in enumerate(WIDTHS, start=1):
            if i > 1:
                x = xla_cpu.max_pool(x)
            x = conv(width * self.widen, (3, 3), padding="VALID", name=f"conv{i}")(x)
            x = nn.relu(norm(f"norm{i}")(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(DENSE * self.widen, dtype=self.dtype, name="dense")(x))
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)

"""VGG networks (Simonyan and Zisserman, arXiv 1409.1556, table 1: A, B, D, E) in the form used for CIFAR.

The form: one dense layer instead of three, no dropout. arXiv 1409.1556 has no norm layers; they are an option here.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers, xla_cpu

WIDTHS = (64, 128, 256, 512, 512)  # of the five stages
CONVOLUTIONS = {  # depth: convolutions of each stage
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class VGG(layers.ConvNet):
    """Five stages of 3x3 convolutions (SAME, with bias, norm if any, ReLU), each ended by a 2x2 max pool; then a dense head.

    Layers are named stage1_conv1, stage1_norm1, ..., stage5_conv{n}, head. Input (B, H, W, C) floats of any size; output
    (B, num_classes) float32. Our choice for small images: a pool is skipped once a side is 1, so 28x28, which comes to 1x1
    after four pools, works; the head sees 512 values for sides below 64, and the flattened positions above. Parameters
    for 32x32x3 and 10 classes: vgg11 9,225,610 (9,231,114 with batch norm), vgg13 9,410,122, vgg16 14,719,818, vgg19
    20,029,514. Initial values are Flax's defaults (LeCun normal kernels, zero biases).

    Attributes:
      depth: 11, 13, 16 or 19, as the paper counts (with its three dense layers).

    Other fields: see `ConvNet`.

    Raises:
      ValueError: unknown depth; and as `ConvNet`.
    """

    depth: int = 11

    def __post_init__(self) -> None:
        layers.check_choice("depth of a VGG", self.depth, CONVOLUTIONS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        conv, norm = layers.parts(self, train, weight)
        x = layers.images(x, self.dtype)
        for stage, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS[self.depth], strict=True), start=1):
            for i in range(1, count + 1):
                x = conv(width * self.widen, (3, 3), name=f"stage{stage}_conv{i}")(x)
                x = nn.relu(norm(f"stage{stage}_norm{i}")(x))
            if min(x.shape[1:3]) > 1:
                x = xla_cpu.max_pool(x)
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)

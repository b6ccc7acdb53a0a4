"""Residual networks for CIFAR (He et al., arXiv 1512.03385, section 4.2), plain and wide.

With w = 16 * widen and n = (depth - 2) / 6: a stem of width w, three stages of n blocks of widths w, 2w, 4w, the second and
third halving the sides, global average pooling, a dense head. WRN56-k here is ResNet56 with w = 16k: the widening of
arXiv 1605.07146, but in the original order (convolution, norm, ReLU) and with the original depth, not that paper's.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers, xla_cpu

WIDTHS = (16, 32, 64)  # of the three stages
DEPTHS = (20, 32, 44, 56, 110)
SHORTCUTS = ("conv", "zeros")


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: ReLU(norm2(conv2(ReLU(norm1(conv1(x))))) + shortcut(x)).

    The shortcut is the identity where shapes agree; else see `ResNet.shortcut`. `keep` changes nothing (see `xla_cpu`).
    """

    width: int
    stride: int
    shortcut: str

    @nn.compact
    def __call__(
        self, x: jax.Array, conv: Callable[..., nn.Conv], norm: Callable[[str], layers.Layer], keep: layers.Layer
    ) -> jax.Array:
        strides = (self.stride, self.stride)
        y = conv(self.width, (3, 3), strides, use_bias=False, name="conv1")(x)
        y = nn.relu(norm("norm1")(y))
        y = conv(self.width, (3, 3), use_bias=False, name="conv2")(y)
        y = norm("norm2")(y)
        if x.shape != y.shape and self.shortcut == "conv":
            x = conv(self.width, (1, 1), strides, use_bias=False, name="shortcut")(x)
            x = norm("shortcut_norm")(x)
        elif x.shape != y.shape:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.width - x.shape[-1])))
        return keep(nn.relu(x + y))


class ResNet(layers.ConvNet):
    """stem, stage1_block0 ... stage3_block{n-1}, global average pooling, head.

    Convolutions have no bias; norm, if any, follows each of them, the stem's and the shortcuts' too. Submodules are named
    stem, stem_norm, stage{s}_block{b}/{conv1, norm1, conv2, norm2, shortcut, shortcut_norm}, head. Input (B, H, W, C) floats
    of any size; output (B, num_classes) float32. Strided convolutions pad as XLA's SAME does: even sides get their one row
    and column of zeros at the end, where arXiv 1512.03385's code and PyTorch's ResNets have it at the start. Initial values
    are Flax's defaults (LeCun normal kernels, zero biases), also where there is no norm.

    Parameters without norm, for c channels: 9 c w + (378 n - 80) w^2 + (4 w + 1) C. For 32x32x3 and 10 classes: resnet20
    270,906, resnet32 464,442, resnet44 657,978, resnet56 851,514, resnet110 1,722,426; wrn56_2 3,403,882, wrn56_4
    13,611,210, wrn56_8 54,436,234. Shortcuts "zeros" save 10 w^2; resnet20_option_a with batch norm has 269,722.

    Attributes:
      depth: 20, 32, 44, 56 or 110.
      shortcut: where a block changes the shape: "conv", a 1x1 convolution of stride 2 (option B of the paper), or "zeros",
        every second row and column, filled up with channels of zeros, which has no parameters (option A). The zeros come
        after the channels; elsewhere half of them come before, which is the same network with its channels renamed.

    Other fields: see `ConvNet`.

    Raises:
      ValueError: unknown depth or shortcut; and as `ConvNet`.
    """

    depth: int = 20
    shortcut: str = "conv"

    def __post_init__(self) -> None:
        layers.check_choice("depth of a ResNet", self.depth, DEPTHS)
        layers.check_choice("shortcut", self.shortcut, SHORTCUTS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, weight: jax.Array | None = None) -> jax.Array:
        conv, norm = layers.parts(self, train, weight)
        x = layers.images(x, self.dtype)
        keep = xla_cpu.keep_sums(x)
        x = conv(WIDTHS[0] * self.widen, (3, 3), use_bias=False, name="stem")(x)
        x = nn.relu(norm("stem_norm")(x))
        for stage, width in enumerate(WIDTHS, start=1):
            for i in range((self.depth - 2) // 6):
                stride = 2 if stage > 1 and i == 0 else 1
                x = Block(width * self.widen, stride, self.shortcut, name=f"stage{stage}_block{i}")(x, conv, norm, keep)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x.mean((1, 2))).astype(jnp.float32)

"""What the convolutional families share: their common fields, convolution in two implementations, norm layers.

Everywhere: parameters are float32 whatever the compute dtype, norm layers work in float32, epsilon is 1e-5 and BatchNorm's
running averages are `0.9 * old + 0.1 * batch`, of the batch's biased variance (Flax's form; PyTorch keeps the unbiased one).
"""

import functools
import numbers
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5
MOMENTUM = 0.9

Layer = Callable[[jax.Array], jax.Array]
"""One layer, ready to be called on its inputs (B, H, W, C)."""


class Convolution(nn.Conv):
    """`nn.Conv` in two dimensions with a choice of implementation; made by `Conv`, which says what it is for.

    A subclass, so that code that looks for `nn.Conv` layers (e.g. `repair`) finds these too.
    """

    implementation: str = "native"

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, inputs.shape[-1], self.features)  # type: ignore[misc]
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
        x, kernel, bias = self.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        assert x is not None and kernel is not None  # only the bias may be
        small = min(x.shape[1:3]) < max(kernel.shape[:2])
        convolve = _convolve_by_slices if small or self.implementation == "slices" else _convolve
        output = convolve(x, kernel, self.strides, self.padding)
        return output if bias is None else output + bias.reshape(1, 1, 1, -1)


def _convolve(inputs: jax.Array, kernel: jax.Array, strides: Any, padding: Any) -> jax.Array:
    """(B, H, W, C) by (h, w, C, O): XLA's own convolution."""
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _convolve_by_slices(inputs: jax.Array, kernel: jax.Array, strides: Any, padding: Any) -> jax.Array:
    """(B, H, W, C) by (h, w, C, O): the h * w shifted, strided slices of the padded inputs, side by side, times the kernel."""
    high, wide, channels, features = kernel.shape
    down, right = strides
    # XLA's own rule: with SAME and stride 2 an odd rest of padding goes to the end, so even sides are padded on one side only.
    rows, columns = jax.lax.padtype_to_pads(inputs.shape[1:3], (high, wide), strides, padding)
    padded = jnp.pad(inputs, ((0, 0), rows, columns, (0, 0)))
    height = (padded.shape[1] - high) // down + 1
    width = (padded.shape[2] - wide) // right + 1
    slices = [
        padded[:, i : i + (height - 1) * down + 1 : down, j : j + (width - 1) * right + 1 : right]
        for i in range(high)
        for j in range(wide)
    ]
    return jnp.tensordot(jnp.concatenate(slices, -1), kernel.reshape(high * wide * channels, features), 1)


CONVS = ("native", "slices")
NORMS = ("none", "batch", "layer", "group")


def Conv(
    features: int,
    kernel_size: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    use_bias: bool = True,
    dtype: Any = None,
    implementation: str = "native",
    name: str | None = None,
) -> nn.Conv:
    """A two-dimensional convolution, parameters "kernel" (h, w, C, features) and "bias" (features,) if it has one.

    Both implementations have the same parameters, the same initial values and, up to rounding, the same outputs:
    `native` is XLA's convolution, but for images smaller than the kernel, which its CPU backend computes without a matrix product
    (measured for 3x3 on 64x2x2x512: 80 times slower): these are computed by slices too. `slices` lays the shifted inputs side by side on the channel axis and multiplies by the
    kernel as a matrix; it holds h * w copies of its inputs in memory, and batched over models (`vmap`) it stays a matrix
    product where XLA's turns into a grouped convolution, which is slow on some backends.

    Args:
      features: output channels.
      kernel_size, strides: (height, width).
      padding: SAME or VALID, as XLA has them.
      use_bias: whether there is a bias.
      dtype: compute dtype; None: that of the inputs and parameters.
      implementation: native or slices.
      name: of the submodule.

    Raises:
      ValueError: unknown implementation or padding.
    """
    check_choice("conv", implementation, CONVS)
    check_choice("padding", padding, ("SAME", "VALID"))
    options: dict[str, Any] = {"use_bias": use_bias, "dtype": dtype, "implementation": implementation, "name": name}
    return Convolution(features, kernel_size, strides, padding, **options)


def norm(kind: str, groups: int, dtype: Any, train: bool, weight: jax.Array | None, name: str) -> Layer:
    """A norm layer with scale and bias over channels; the identity, without parameters, for `none`.

    Args:
      kind: none; batch (statistics over examples and positions, and running ones in the collection 'batch_stats'); layer
        (over the channels of each position); group (over positions and the channels of each of `groups` groups).
      groups: for `group`.
      dtype: of the outputs, None for float32. The layer itself computes in float32.
      train: BatchNorm takes the batch's statistics and updates the running ones.
      weight: (B,) float or bool; 0 keeps an example out of the batch's statistics, any other value counts it once. At least
        one must count: the mean of none is NaN. None: all count, at no cost.
      name: of the submodule.

    Raises:
      ValueError: unknown kind; when called: `groups` does not divide the number of channels.
    """
    check_choice("norm", kind, NORMS)

    def batch(x):
        mask = None if weight is None else weight.astype(bool).reshape(-1, *(1,) * (x.ndim - 1))
        layer = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, name=name)
        return layer(x, mask=mask)

    def group(x):
        if groups < 1 or x.shape[-1] % groups:
            raise ValueError(f"norm 'group': {groups} groups do not divide the {x.shape[-1]} channels of {name}")
        return nn.GroupNorm(groups, epsilon=EPSILON, name=name)(x)

    layers = {"batch": batch, "layer": lambda x: nn.LayerNorm(epsilon=EPSILON, name=name)(x), "group": group}
    if kind == "none":
        return lambda x: x
    return lambda x: layers[kind](x.astype(jnp.float32)).astype(dtype or jnp.float32)


def opaque_one(inputs: jax.Array) -> jax.Array:
    """The number 1, a scalar of the inputs' dtype, by an arithmetic that the compiler does not see through.

    It counts the bits of a number and finds at most 32. What is 1 for real numbers only, `exp(0 * x)` say, will not do: programs
    for several devices are simplified as if there were no others.
    """
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(inputs.min()).astype(jnp.float32), jnp.uint32)
    return jnp.where(jax.lax.population_count(bits) <= np.uint32(32), np.float32(1), np.float32(2)).astype(inputs.dtype)


def no_recompute(x: jax.Array, one: jax.Array) -> jax.Array:
    """`x / 1`, which is `x` bit for bit, so that the compiler keeps `x` instead of computing it again.

    XLA's CPU compiler fuses cheap operations into each of their users, here into the transposition that the gradient of a
    kernel needs. A residual stream is a chain of them, so that each block's gradient would sum all blocks before it again,
    in a slow order. A division counts as expensive and is not repeated (measured, CPU, batch 64: a training step of ResNet20
    takes 1.3 times, of ResNet56 2.2 times as long without it). `jax.lax.optimization_barrier` is gone by then and does not help.

    Args:
      x: any shape; one: a scalar of its dtype, see `one`.
    """
    return x / one


class ConvNet(nn.Module):
    """The fields of every convolutional family; not a network itself.

    Attributes:
      num_classes: C.
      dtype: compute dtype, e.g. `jnp.bfloat16`; None: float32. Parameters, statistics and logits are float32 in any case.
      norm: none, batch, layer or group; see `norm`.
      groups: of norm group; must divide every width.
      widen: multiplies all widths.
      conv: native or slices; see `Conv`.

    Raises:
      ValueError: unknown norm or conv, a number below 1.
    """

    num_classes: int
    dtype: Any = None
    norm: str = "none"
    groups: int = 8
    widen: int = 1
    conv: str = "native"

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, NORMS)
        check_choice("conv", self.conv, CONVS)
        for field in ("num_classes", "groups", "widen"):
            value = getattr(self, field)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{field} must be an integer of at least 1, got {value!r}")
        super().__post_init__()


def parts(net: ConvNet, train: bool, weight: jax.Array | None) -> tuple[Callable[..., nn.Conv], Callable[[str], Layer]]:
    """`Conv` and `norm` with the fields of `net` filled in: `conv(features, kernel_size, ...)` and `norm(name)`."""
    conv = functools.partial(Conv, dtype=net.dtype, implementation=net.conv)
    return conv, functools.partial(norm, net.norm, net.groups, net.dtype, train, weight)


def images(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in the compute dtype; ValueError unless it is (B, H, W, C)."""
    if x.ndim != 4:
        raise ValueError(f"convolutional networks take images (B, H, W, C), got the shape {x.shape}")
    return x.astype(dtype or jnp.float32)


def check_choice(what: str, value: Any, names: Any) -> None:
    """ValueError unless `value` is one of `names`, which it lists."""
    if value not in names:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(map(str, names))}")


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 window, stride 2, VALID: (B, H, W, C) to (B, H // 2, W // 2, C).

    Values as `nn.max_pool`'s. Forward and gradient are written with shifted slices because the gradient of a windowed reduction
    is slow on CPUs (measured: 33 ms against 1 ms for 64x30x30x32), and the gradient by hand because it saves a fifth of a
    training step of the CNN over the derived one. Entries that tie share the gradient; `nn.max_pool` gives it to the first.
    """
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    corners = [x[:, i:height:2, j:width:2] for i, j in CORNERS]
    return jnp.maximum(jnp.maximum(corners[0], corners[1]), jnp.maximum(corners[2], corners[3]))


CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Of a 2x2 window."""


def _pooled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The pool, and (B, H, W, C) bool which entries are the largest of their window, a byte each."""
    largest = max_pool(x)
    height, width = 2 * largest.shape[1], 2 * largest.shape[2]
    rest = ((0, 0), (0, x.shape[1] - height), (0, x.shape[2] - width), (0, 0))  # an odd last row or column
    return largest, jnp.pad(x[:, :height, :width] == _doubled(largest), rest)


def _pool_gradient(is_largest: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    height, width = 2 * g.shape[1], 2 * g.shape[2]
    inside = is_largest[:, :height, :width]
    ties = sum(inside[:, i::2, j::2].astype(g.dtype) for i, j in CORNERS)
    shared = jnp.where(inside, _doubled(g / ties), jnp.zeros((), g.dtype))
    rest = ((0, 0), (0, is_largest.shape[1] - height), (0, is_largest.shape[2] - width), (0, 0))
    return (jnp.pad(shared, rest),)


def _doubled(x: jax.Array) -> jax.Array:
    """Each entry of (B, H, W, C) as a 2x2 window: (B, 2 H, 2 W, C)."""
    batch, height, width, channels = x.shape
    windows = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return windows.reshape(batch, 2 * height, 2 * width, channels)


max_pool.defvjp(_pooled, _pool_gradient)

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

from tna_jax.models import xla_cpu

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
        convolve = xla_cpu.convolve_by_slices if small or self.implementation == "slices" else _convolve
        output = convolve(x, kernel, self.strides, self.padding)
        return output if bias is None else output + bias.reshape(1, 1, 1, -1)


def _convolve(inputs: jax.Array, kernel: jax.Array, strides: Any, padding: Any) -> jax.Array:
    """(B, H, W, C) by (h, w, C, O): XLA's own convolution."""
    return jax.lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


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
    """Returns a two-dimensional convolution with the parameters "kernel" (h, w, C, features) and "bias" (features,) if it has one.

    Both implementations have the same parameters, the same initial values and, up to rounding, the same outputs:
    `native` is XLA's convolution, but for images smaller than the kernel, which are convolved by slices too. `slices` lays the
    shifted inputs side by side on the channel axis and multiplies by the kernel as a matrix; it holds h * w copies of its inputs
    in memory. Why: see `tna_jax.models.xla_cpu`.

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
    """Returns a norm layer with scale and bias over channels; the identity, without parameters, for `none`.

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

    def batch(x: jax.Array) -> jax.Array:
        mask = None if weight is None else weight.astype(bool).reshape(-1, *(1,) * (x.ndim - 1))
        layer = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, epsilon=EPSILON, name=name)
        normalized: jax.Array = layer(x, mask=mask)
        return normalized

    def group(x: jax.Array) -> jax.Array:
        if groups < 1 or x.shape[-1] % groups:
            raise ValueError(f"norm 'group': {groups} groups do not divide the {x.shape[-1]} channels of {name}")
        normalized: jax.Array = nn.GroupNorm(groups, epsilon=EPSILON, name=name)(x)
        return normalized

    layers: dict[str, Layer] = {
        "batch": batch,
        "layer": lambda x: nn.LayerNorm(epsilon=EPSILON, name=name)(x),
        "group": group,
    }
    if kind == "none":
        return lambda x: x
    return lambda x: layers[kind](x.astype(jnp.float32)).astype(dtype or jnp.float32)


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
    """Returns `Conv` and `norm` with the fields of `net` filled in: `conv(features, kernel_size, ...)` and `norm(name)`."""
    conv = functools.partial(Conv, dtype=net.dtype, implementation=net.conv)
    return conv, functools.partial(norm, net.norm, net.groups, net.dtype, train, weight)


def images(x: jax.Array, dtype: Any) -> jax.Array:
    """Returns `x` in the compute dtype; raises ValueError unless it is (B, H, W, C)."""
    if x.ndim != 4:
        raise ValueError(f"convolutional networks take images (B, H, W, C), got the shape {x.shape}")
    return x.astype(dtype or jnp.float32)


def check_choice(what: str, value: Any, names: Any) -> None:
    """Raises ValueError unless `value` is one of `names`, which it lists."""
    if value not in names:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(map(str, names))}")

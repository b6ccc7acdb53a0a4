"""Work-arounds for one compiler, XLA's for CPUs: the same functions, written so that it makes fast programs of them.

Networks are written as their papers have them and call these where measurements asked for it. On other devices they cost next to
nothing. What it does slowly, and what is done instead:

- **Convolution of images smaller than the kernel** is computed without a matrix product (3x3 on 64x2x2x512: 80 times slower).
  `convolve_by_slices` always is one. Batched over models (`vmap`) it stays one, where XLA's turns into a grouped convolution,
  which is slow on some other backends too: the option `conv="slices"`.
- **The gradient of a windowed maximum** is slow (64x30x30x32: 33 ms against 1 ms). `max_pool` and its gradient are shifted slices;
  the gradient is written by hand because that saves a fifth of a training step of the CNN over the derived one.
- **Residual sums are computed again and again.** The compiler fuses cheap operations into each of their users, here into the
  transposition that the gradient of a kernel needs. A residual stream is a chain of them, so that each block's gradient would sum
  all blocks before it again, in a slow order. A division counts as expensive and is not repeated: `keep_sums` divides by a 1 that
  it does not recognize (batch 64: a training step of ResNet20 takes 1.3 times, of ResNet56 2.2 times as long without it).
  `jax.lax.optimization_barrier` is gone by then and does not help.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def convolve_by_slices(
    inputs: Float[Array, "B H W C"], kernel: Float[Array, "h w C O"], strides: Any, padding: Any
) -> Float[Array, "B y x O"]:
    """Convolves as a product of matrices: the h * w shifted, strided slices of the padded inputs, side by side, times the kernel.

    Args:
      inputs: (B, H, W, C).
      kernel: (h, w, C, O), of their dtype.
      strides: (down, right).
      padding: SAME or VALID.

    Returns:
      (B, H', W', O), what XLA's convolution gives up to rounding.
    """
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


def opaque_one(inputs: Float[Array, "..."]) -> Float[Array, ""]:
    """Returns the number 1, a scalar of the inputs' dtype, by an arithmetic that the compiler does not see through.

    It counts the bits of a number and finds at most 32. What is 1 for real numbers only, `exp(0 * x)` say, will not do: programs
    for several devices are simplified as if there were no others.
    """
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(inputs.min()).astype(jnp.float32), jnp.uint32)
    return jnp.where(jax.lax.population_count(bits) <= np.uint32(32), np.float32(1), np.float32(2)).astype(inputs.dtype)


def no_recompute(x: Float[Array, "*S"], one: Float[Array, ""]) -> Float[Array, "*S"]:
    """Returns `x / 1`, which is `x` bit for bit, so that the compiler keeps `x` instead of computing it again.

    Args:
      x: any shape.
      one: a scalar of its dtype, see `opaque_one`.
    """
    return x / one


def keep_sums(inputs: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Returns a function that gives its argument back, bit for bit, and has the compiler compute it once.

    Args:
      inputs: of the network or the block, of the dtype that the argument will have.
    """
    one = opaque_one(inputs)
    return lambda x: no_recompute(x, one)


@jax.custom_vjp
def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Returns the largest of each 2x2 window, stride 2, VALID: (B, H, W, C) to (B, H // 2, W // 2, C).

    Values as `nn.max_pool`'s. Entries that tie share the gradient; `nn.max_pool` gives it to the first.
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

"""Numbers of extreme size whose products in float32 would be 0 or infinite: computed in float64, or brought near 1 by powers of two."""

import jax
import jax.numpy as jnp
import numpy as np

USUAL = 40
"""Powers of two: arrays whose largest entry is not further from 1 are multiplied as they are."""
FARTHEST = 480
"""Likewise, beyond which products leave float64 too."""


def largest(values: np.ndarray) -> float:
    """Returns the largest magnitude; NaN where there is one, 0 of nothing."""
    return float(np.maximum(values.max(initial=0), -values.min(initial=0)))


def is_usual(values: np.ndarray) -> bool:
    """Returns True only if all values are finite and the largest is not further from 1 than `USUAL`, by one pass over them."""
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        squares = float(np.dot(flat, flat))
    return 2.0**-USUAL <= squares <= 2.0 ** (2 * USUAL - 2)


def is_far(magnitude: float, power: int) -> bool:
    """Returns whether a magnitude is finite, not 0, and further from 1 than 2 to this power."""
    return bool(np.isfinite(magnitude) and magnitude and not 2.0**-power <= magnitude <= 2.0**power)


def widened(leaf: np.ndarray) -> np.ndarray:
    """Returns real numbers as float32, or as float64 where their largest is so far from 1 that products in float32 would be 0 or infinite."""
    wide = leaf if leaf.dtype == np.float64 else leaf.astype(np.float32, copy=False)
    far = not is_usual(wide) and is_far(largest(wide), USUAL)
    return wide.astype(np.float64 if far else np.float32, copy=False)


def exponent_of(*arrays: jax.Array) -> jax.Array:
    """Returns () int32, for use inside `jit`: the power of two near the largest entry if that is far from 1, else 0."""
    magnitude = jnp.stack([jnp.abs(x).max(initial=0) for x in arrays]).max()
    exponent = jnp.frexp(magnitude)[1]
    return jnp.where(jnp.isfinite(magnitude) & (jnp.abs(exponent) > USUAL), exponent, 0)


def brought_near(values: jax.Array, exponent: jax.Array) -> jax.Array:
    """Divides by 2 to the power of `exponent`, exactly; in two steps, for one factor may be no float32."""
    first = exponent // 2
    for part in (first, exponent - first):
        values = values * jnp.ldexp(np.float32(1), -part)
    return values

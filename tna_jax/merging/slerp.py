"""Spherical interpolation of two models: `sin((1 - t) a) / sin(a) * x + sin(t a) / sin(a) * y`, a their angle (Shoemake 1985).

The angle is that of the normalized models, the factors are applied to the models as they are: so `t` = 0 and 1 give the
models whatever their norms, as in mergekit. `t` is the second weight, divided by the sum of both, and must lie in [0, 1] (our
choice: mergekit computes what lies beyond, where the curve is no straight line; `average` and `task_arithmetic` extrapolate).
Where the arc is not defined (a zero vector) or not the shortest of one (parallel or opposite vectors, within 1e-6), the
straight line is taken: our choice.
"""

from typing import Any

import numpy as np

from tna_jax.merging.angles import GRAM, cosines
from tna_jax.merging.average import combine
from tna_jax.merging.method import Array, Context, Method

PARALLEL = 1e-6
"""Sine of the angle below which two directions are taken for one."""


def coefficients(products: Array, weights: Array) -> Array:
    """Returns the (2,) factors of two models with (2, 2) inner products and shares of sum 1."""
    norms, cosine = cosines(products)
    angle = np.arccos(cosine[0, 1])
    shares = weights.astype(np.float64)
    if not norms.all() or np.sin(angle) < PARALLEL or not np.isfinite(angle):
        return shares
    factors: Array = np.sin(shares * angle) / np.sin(angle)
    return np.where(shares == 1, 1.0, factors)


def slerp(base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any) -> Array:
    """Computes the point of the arc between two models (2, ...); `context.facts` are their inner products."""
    return combine(coefficients(context.facts, weights), vectors)


METHOD = Method(
    "slerp", "the arc between two models", "Shoemake 1985", slerp, needs_base=False, normalized=True,
    extrapolates=False, min_models=2, max_models=2, surveys=(GRAM,),
)  # fmt: skip

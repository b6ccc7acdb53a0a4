"""The spherical mean of many models: SLERP for more than two (Karcher 1977, the Riemannian center of mass on the sphere).

The directions of the models are points of a sphere; their mean is the point x with `sum_i w_i log_x(u_i) = 0`, found by
`x <- exp_x(sum_i w_i log_x(u_i))` from the normalized average. Everything stays in the span of the models, so it is computed on
their inner products alone. The result is x times the weighted mean of the norms (our choice, as mergekit's `karcher`; `slerp`
keeps the ends' norms another way, so both agree for two models of equal norms). A zero vector has no direction and is left
out. Where the mean is not defined (directions that cancel) the plain average is taken.
"""

from typing import Any

import numpy as np

from tna_jax.merging.angles import GRAM, cosines
from tna_jax.merging.average import combine
from tna_jax.merging.method import Array, Context, Method

STEPS, TOLERANCE = 100, 1e-12
"""Iterations at most, and the length of a step at which they end."""


def coefficients(products: Array, weights: Array) -> Array:
    """Returns the (M,) factors of the models with (M, M) inner products and shares of sum 1."""
    norms, cosine = cosines(products)
    shares = np.where(norms > 0, weights, 0).astype(np.float64)
    if not np.isfinite(norms).all() or shares.sum() <= 0 or np.count_nonzero(shares) == 1:
        return weights if shares.sum() <= 0 or not np.isfinite(norms).all() else (shares != 0).astype(np.float64)
    shares /= shares.sum()
    length = np.sqrt(max(0.0, float(shares @ cosine @ shares)))
    if length < 1e-6:
        return weights
    point = shares / length
    for _ in range(STEPS):
        along = np.clip(cosine @ point, -1, 1)
        angles = np.arccos(along)
        sines = np.sin(angles)
        pull = shares * np.where(sines > 1e-9, angles / np.where(sines > 1e-9, sines, 1), 1)
        tangent = pull - (pull @ along) * point
        step = np.sqrt(max(0.0, float(tangent @ cosine @ tangent)))
        if step < TOLERANCE:
            break
        point = np.cos(step) * point + np.sin(step) / step * tangent
        point /= np.sqrt(point @ cosine @ point)
    scaled: Array = point * (shares @ norms) / np.where(norms > 0, norms, 1)
    return scaled


def karcher(base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any) -> Array:
    """Computes the spherical mean of the models (M, ...); `context.facts` are their inner products."""
    return combine(coefficients(context.facts, weights), vectors)


METHOD = Method(
    "karcher", "the spherical mean of the models", "Karcher 1977", karcher, needs_base=False, normalized=True, surveys=(GRAM,)
)  # fmt: skip

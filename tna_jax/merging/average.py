"""The weighted average, `sum_i w_i model_i` with `sum_i w_i = 1` (model soups, arXiv 2203.05482).

The same as `tna_jax.weighted_average`, for one tensor in NumPy; use that one under `jit`.
"""

from typing import Any

import numpy as np

from tna_jax.merging.method import Array, Context, Method


def combine(coefficients: Array, vectors: Array) -> Array:
    """Computes `sum_i c_i v_i` of (M, ...) in their dtype, in the order of the models; one of coefficient 0 may hold anything."""
    total = np.zeros(vectors.shape[1:], vectors.dtype)
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        if coefficient != 0:
            total += coefficient.astype(vectors.dtype) * vector
    return total


def shifted(base: Array, strength: float, vector: Array) -> Array:
    """Computes `base + strength * vector` in the dtype of `vector`."""
    result: Array = base + vector.dtype.type(strength) * vector
    return result


def average(base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any) -> Array:
    """Computes the average of the models `vectors` (M, ...). Law: a single weight that is not 0 gives that model, bit for bit."""
    return combine(weights, vectors)


METHOD = Method("average", "the weighted mean of the models", "2203.05482", average, needs_base=False, normalized=True)

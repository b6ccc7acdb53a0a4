"""Inner products of the models, tensor by tensor or of whole models: what methods of angles know of them."""

from typing import Any

import numpy as np

from tna_jax.merging.method import Array, Options, Survey


def inner_products(vectors: Array, facts: Any, options: Options) -> Array:
    """Computes the (M, M) float64 inner products of (M, ...), summed in float64."""
    count, size = len(vectors), int(np.prod(vectors.shape[1:]))
    flat, products = vectors.reshape(count, size), np.zeros((count, count))
    for first in range(0, size, PIECE):
        piece = flat[:, first : first + PIECE].astype(np.float64)
        products += piece @ piece.T
    return products


PIECE = 1 << 16
"""Entries of a model that are held in float64 at a time."""

GRAM = Survey(inner_products, lambda total, facts, options: total)


def cosines(products: Array) -> tuple[Array, Array]:
    """Returns (M,) norms and (M, M) cosines of inner products; those of a zero vector are 0."""
    norms = np.sqrt(np.diagonal(products))
    scale = np.where(norms > 0, norms, 1)
    return norms, np.clip(products / scale[:, None] / scale[None], -1, 1)

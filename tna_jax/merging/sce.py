"""SCE: select, calculate, erase (Wan et al., FuseChat, arXiv 2408.07990).

1. Select: the entries whose variance across the task vectors is largest, a share `density` of each tensor (the paper's
   top tau %), in all models the same.
2. Calculate: a model's coefficient for the tensor is its share of the sum of squares of what was selected.
3. Erase: values whose sign is not that of the sum over models are dropped.

The result is `base + strength * sum_i c_i v_i / sum_i c_i` over what was not erased. The division, which keeps an entry's
size where values were erased, is that of the public implementations; the paper's coefficients sum to 1 before the erasing.
Variances as large as the smallest selected are selected. Weights multiply the coefficients (ours: the paper has none).
"""

from typing import Any

import numpy as np

from tna_jax.merging import magnitudes
from tna_jax.merging.average import shifted
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option, Options, Survey
from tna_jax.merging.signs import agreeing_mean

DENSITY = Option("density", 0.1, "share of entries that are selected, by variance", low=0, high=1, above=True)


def variance(vectors: Array) -> Array:
    """Returns (1, ...) float32 variances over the models."""
    mean, spread = np.add.reduce(vectors) / vectors.dtype.type(len(vectors)), np.zeros_like(vectors[0])
    for vector in vectors:
        spread += np.square(vector - mean)
    result: Array = (spread / vectors.dtype.type(len(vectors)))[None].astype(np.float32)
    return result


def _smallest_selected(size: int, options: Options) -> list[int]:
    return [size - magnitudes.kept(options["density"], size)]


def select(vectors: Array, threshold: Array) -> Array:
    """Returns (M, ...), 0 where the variance is below the (1, 1) threshold."""
    return np.where(variance(vectors) < threshold.reshape(()), 0, vectors)


ENERGY = Survey(
    lambda vectors, facts, options: (
        np.square(select(vectors, facts), dtype=np.float64).reshape(len(vectors), -1).sum(1)
    ),
    lambda total, facts, options: (facts, total),
)
"""Sums of squares of what was selected, (M,) float64, beside the threshold."""


def sce(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *, strength: float = 1.0, **options: Any
) -> Array:
    """Adds to the base what was selected and not erased; `context.facts` are the threshold and the models' sums of squares."""
    assert base is not None
    threshold, energy = context.facts
    total = energy.sum()
    shares = energy / total if total > 0 else np.full(len(energy), 1 / len(energy))
    coefficients = shares.astype(weights.dtype) * weights
    selected = select(vectors, threshold)
    total_change = selected.sum(axis=0)
    erased = ((selected > 0) & (total_change <= 0)) | ((selected < 0) & (total_change >= 0))
    agreeing = np.where(erased, 0, selected)
    return shifted(base, strength, agreeing_mean(agreeing, coefficients, "sum"))


METHOD = Method(
    "sce", "selects the entries that differ most between models, and averages by their size those that agree in sign",
    "2408.07990", sce, needs_base=True, normalized=True, options=(DENSITY, STRENGTH),
    surveys=(*magnitudes.surveys(_smallest_selected, variance), ENERGY),
)  # fmt: skip

"""TIES: trim, elect signs, merge those that agree (Yadav et al., arXiv 2306.01708).

1. Trim: of each task vector, the entries of the largest magnitude stay, a share `density` (the paper's k = 20 %); the rest
   is 0.
2. Elect: each entry's sign, see `tna_jax.merging.signs`.
3. Merge: the mean over the models whose entry has this sign. The result is `base + strength * mean`; the
   paper's lambda is 1 without held-out data.

The paper trims over the whole model (scope `model` here); mergekit trims each tensor (scope `tensor`). Entries as large as
the smallest that stays stay too, as in the paper's code, so that equal magnitudes are treated alike. With weights the mean is
weighted, and they do not scale the result: they are divided by the sum of those that agree (mergekit: `normalize: true`).
"""

from typing import Any

import numpy as np

from tna_jax.merging import magnitudes
from tna_jax.merging.average import shifted
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option, Options
from tna_jax.merging.signs import ELECT, agreeing_mean

DENSITY = Option("density", 0.2, "share of each task vector's entries that stay", low=0, high=1, above=True)


def _smallest_kept(size: int, options: Options) -> list[int]:
    return [size - magnitudes.kept(options["density"], size)]


def trim(vectors: Array, thresholds: Array) -> Array:
    """Returns (M, ...) with entries whose magnitude is below the (M, 1) threshold of their model set to 0."""
    limits = thresholds[:, 0].reshape(-1, *(1,) * (vectors.ndim - 1))
    return np.where(magnitudes.magnitudes(vectors) < limits, 0, vectors)


def ties(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    strength: float = 1.0, elect: str = "sum", **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the mean of the trimmed task vectors that agree in sign; `context.facts` are the (M, 1) thresholds."""
    assert base is not None
    return shifted(base, strength, agreeing_mean(trim(vectors, context.facts), weights, elect))


METHOD = Method(
    "ties", "trims small changes, elects each entry's sign, and averages those that agree", "2306.01708", ties,
    needs_base=True, normalized=True, options=(DENSITY, STRENGTH, ELECT), surveys=magnitudes.surveys(_smallest_kept),
)  # fmt: skip

"""Model Stock: how far from the base towards the mean, by the angle between task vectors (Jang et al., arXiv 2403.19522).

`base + t * (mean - base)` with `t = N c / (1 + (N - 1) c)`, N models, c the cosine between their task vectors, layer by layer
(scope `tensor`); for two models `t = 2 c / (1 + c)`. No data is needed. The paper takes one angle for all pairs; with
measured ones c is their mean. Our choices: c is held in [0, 1], since t would leave [0, 1] below 0 and has a pole at
`-1 / (N - 1)`; a task vector that is 0 has cosine 0 with all; with weights the mean is weighted, c is not.
"""

from typing import Any

import numpy as np

from tna_jax.merging.angles import GRAM, cosines
from tna_jax.merging.average import combine
from tna_jax.merging.method import Array, Context, Method


def interpolation_ratio(products: Array) -> float:
    """Returns t in [0, 1] of N >= 2 task vectors from their (N, N) inner products. Laws: 0 at cosine 0, 1 at cosine 1."""
    count = len(products)
    _, cosine = cosines(products)
    mean = float(np.clip(cosine[~np.eye(count, dtype=bool)].mean(), 0, 1))
    return count * mean / (1 + (count - 1) * mean)


def model_stock(base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any) -> Array:
    """Moves from the base towards the mean of the models; `context.facts` are the inner products of the task vectors."""
    assert base is not None
    return base + combine(weights * weights.dtype.type(interpolation_ratio(context.facts)), vectors)


METHOD = Method(
    "model_stock", "from the base towards the mean, as far as the task vectors point the same way", "2403.19522", model_stock,
    needs_base=True, normalized=True, min_models=2, surveys=(GRAM,),
)  # fmt: skip

"""Task arithmetic, `base + strength * sum_i w_i (model_i - base)` (Ilharco et al., arXiv 2212.04089).

The paper adds all task vectors with one strength, chosen on held-out data; where there are none, 0.4 is what the TIES paper
(2306.01708) recommends for it, hence the default. A strength of 1 / M is the average; a weight of -1 is the
paper's negation. mergekit's `task_arithmetic` is this with strength 1 and no division by the sum of the weights.
"""

import dataclasses
from typing import Any

from tna_jax.merging.average import combine
from tna_jax.merging.method import STRENGTH, Array, Context, Method


def task_arithmetic(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *, strength: float = 0.4, **options: Any
) -> Array:
    """Adds the weighted sum of task vectors (M, ...), times `strength`, to the base (...)."""
    assert base is not None
    return base + combine(weights * weights.dtype.type(strength), vectors)


METHOD = Method(
    "task_arithmetic", "the base plus the sum of all task vectors times a strength", "2212.04089", task_arithmetic,
    needs_base=True, normalized=False, options=(dataclasses.replace(STRENGTH, default=0.4),),
)  # fmt: skip

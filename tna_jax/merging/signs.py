"""Sign election and the mean of those that agree: steps 2 and 3 of TIES (arXiv 2306.01708), for all methods that elect."""

import numpy as np

from tna_jax.merging.average import combine
from tna_jax.merging.method import Array, Option

ELECT = Option(
    "elect", "sum", "how an entry's sign is elected: by the sum of its values (the paper), or by the number of models",
    choices=("sum", "count"),
)  # fmt: skip


def agreeing_mean(vectors: Array, weights: Array, elect: str) -> Array:
    """Computes the mean over the models whose sign is the elected one, entry by entry: (M, ...) to (...), 0 where there is none.

    `sum` elects the sign of `sum_i w_i v_i`, the paper's rule ("elect" by total magnitude); `count` the sign that more models
    have, weights aside (mergekit has it too, for methods of one's own). Where both signs weigh the same no sign is elected, and the entry is 0: so
    the formula reads, `sgn(0) = 0`; the paper's code takes the sign that most entries of the tensor have, mergekit the
    positive one. Values that are 0 do not vote and are not counted.

    Args:
      vectors: (M, ...) task vectors, trimmed or dropped.
      weights: (M,); a negative one turns its vector round, and the mean's divisor is the sum of their magnitudes.
      elect: `sum` or `count`.
    """
    total = combine(weights, vectors) if elect == "sum" else combine(np.sign(weights), np.sign(vectors))
    positive, negative = total > 0, total < 0
    mean, divisor = np.zeros_like(total), np.zeros_like(total)
    for vector, weight in zip(vectors, weights, strict=True):
        if weight == 0:
            continue
        value = weight * vector
        agrees = ((value > 0) & positive) | ((value < 0) & negative)
        mean += value * agrees  # what is not finite stays so, whether it agrees or not
        divisor += abs(weight) * agrees
    return np.divide(mean, divisor, out=mean, where=divisor != 0)

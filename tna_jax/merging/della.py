"""DELLA: drop by magnitude, small changes more often, and rescale (Deep et al., arXiv 2406.11617, its MagPrune).

In each row of a task vector the entries are ranked by magnitude. The drop probability falls linearly from `p + epsilon / 2`
at the smallest to `p - epsilon / 2` at the largest, `p = 1 - density`, and an entry that stays is divided by its probability
to stay. Then signs are elected and those that agree averaged (`della`; the paper's steps 2 and 3), or all are added
(`della_linear`, mergekit's name).

A row is what enters one unit: the last axis of a tensor in PyTorch's layout (out, in), the axes but the last one of a Flax
`kernel`. Tensors with one axis are one row. epsilon is the whole width here, as in the paper; mergekit's is half of it. Equal
magnitudes are ranked by their index: our choice. What is drawn is as in DARE.
"""

import dataclasses
from typing import Any

import numpy as np

from tna_jax.merging.average import combine, shifted
from tna_jax.merging.dare import DENSITY
from tna_jax.merging.draws import SEED, uniform
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option, Options
from tna_jax.merging.rows import by_unit
from tna_jax.merging.signs import ELECT, agreeing_mean

EPSILON = Option("epsilon", 0.2, "difference between the largest and the smallest drop probability", low=0, high=1)


def keep_probability(rows: Array, density: float, epsilon: float) -> Array:
    """Returns the probability to stay of entries of (units, n) rows, by rank of magnitude: the smallest has `density - epsilon / 2`."""
    count = rows.shape[1]
    ranks = np.empty(rows.shape, np.int64)
    np.put_along_axis(ranks, np.argsort(np.abs(rows), axis=1, kind="stable"), np.arange(count)[None], axis=1)
    middle = np.float32((count - 1) / 2)
    slope = np.float32(epsilon / (count - 1) if count > 1 else 0)
    return np.float32(density) + slope * (ranks.astype(np.float32) - middle)


def mag_prune(vectors: Array, density: float, epsilon: float, seed: int, context: Context) -> Array:
    """Returns (M, ...) task vectors, entries dropped by rank of magnitude and the rest rescaled. Law: density 1, epsilon 0 is the identity."""
    pruned = np.zeros_like(vectors)
    for model, (vector, into) in enumerate(zip(vectors, pruned, strict=True)):
        probability = by_unit(vector, context.name, lambda rows: keep_probability(rows, density, epsilon))
        stays = uniform(seed, context, model, vector.size).reshape(vector.shape) < probability
        np.divide(vector, probability, out=into, where=stays, casting="same_kind")
    return pruned


def della(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    density: float = 0.5, epsilon: float = 0.2, strength: float = 1.0, elect: str = "sum", seed: int = 0, **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the mean of the pruned task vectors that agree in sign, times `strength`."""
    assert base is not None
    pruned = mag_prune(vectors, density, epsilon, seed, context)
    return shifted(base, strength, agreeing_mean(pruned, weights, elect))


def della_linear(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    density: float = 0.5, epsilon: float = 0.2, strength: float = 0.4, seed: int = 0, **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the weighted sum of the pruned task vectors, times `strength`."""
    assert base is not None
    pruned = mag_prune(vectors, density, epsilon, seed, context)
    return base + combine(weights * weights.dtype.type(strength), pruned)


def _problem(options: Options) -> str | None:
    low, high = options["density"] - options["epsilon"] / 2, options["density"] + options["epsilon"] / 2
    if low > 0 and high <= 1:
        return None
    return f"density - epsilon / 2 must be above 0 and density + epsilon / 2 at most 1, got {low:g} and {high:g}: use a smaller epsilon"


METHOD = Method(
    "della", "drops small changes more often than large ones, rescales, and averages those that agree in sign", "2406.11617",
    della, needs_base=True, normalized=True, options=(DENSITY, EPSILON, STRENGTH, ELECT, SEED), in_pieces=False, problem=_problem,
)  # fmt: skip
LINEAR = Method(
    "della_linear", "drops small changes more often than large ones, rescales the rest, and adds them", "2406.11617",
    della_linear, needs_base=True, normalized=False, in_pieces=False, problem=_problem,
    options=(DENSITY, EPSILON, dataclasses.replace(STRENGTH, default=0.4), SEED),
)  # fmt: skip

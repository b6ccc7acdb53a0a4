"""DARE: drop entries of task vectors at random and rescale the rest (Yu et al., arXiv 2311.03099).

Each entry stays with probability `density` (the paper's 1 - p) and is divided by it, so that the expectation stays.
`dare_linear` then adds the task vectors as task arithmetic does, `dare_ties` elects signs and averages those that agree, in
place of TIES' trimming (both are in the paper).

mergekit 0.1.5 scales what stays by one factor a tensor, so that the sum of its magnitudes stays, instead of dividing.

What is dropped depends on the seed, the tensor's name, the model's index and the entry's: a rerun gives the same bytes,
models drop independently of each other, and models in another order drop other entries. Applied twice with one seed it drops
the same entries and divides by the density again.
"""

import dataclasses
from typing import Any

import numpy as np

from tna_jax.merging.average import combine, shifted
from tna_jax.merging.draws import SEED, uniform
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option
from tna_jax.merging.signs import ELECT, agreeing_mean

DENSITY = Option(
    "density", 0.5, "share of each task vector's entries that is expected to stay", low=0, high=1, above=True
)


def drop(vectors: Array, density: float, seed: int, context: Context) -> Array:
    """Returns (M, ...) with entries dropped at random and the rest divided by `density`. Law: density 1 is the identity."""
    dropped = np.zeros_like(vectors)
    for model, (vector, into) in enumerate(zip(vectors, dropped, strict=True)):
        stays = uniform(seed, context, model, vector.size).reshape(vector.shape) < density
        np.divide(vector, vector.dtype.type(density), out=into, where=stays)
    return dropped


def dare_linear(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    density: float = 0.5, strength: float = 0.4, seed: int = 0, **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the weighted sum of the dropped task vectors, times `strength`."""
    assert base is not None
    return base + combine(weights * weights.dtype.type(strength), drop(vectors, density, seed, context))


def dare_ties(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    density: float = 0.5, strength: float = 1.0, elect: str = "sum", seed: int = 0, **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the mean of the dropped task vectors that agree in sign, times `strength`."""
    assert base is not None
    return shifted(base, strength, agreeing_mean(drop(vectors, density, seed, context), weights, elect))


LINEAR = Method(
    "dare_linear", "drops changes at random, rescales the rest, and adds them", "2311.03099", dare_linear,
    needs_base=True, normalized=False, options=(DENSITY, dataclasses.replace(STRENGTH, default=0.4), SEED),
)  # fmt: skip
TIES = Method(
    "dare_ties", "drops changes at random, rescales the rest, and averages those that agree in sign", "2311.03099",
    dare_ties, needs_base=True, normalized=True, options=(DENSITY, STRENGTH, ELECT, SEED),
)  # fmt: skip

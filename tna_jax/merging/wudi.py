"""WUDI-Merging: the task vector that disturbs the others least, without data (Cheng et al., arXiv 2503.08099).

A linear layer's task vector spans approximately the inputs it was trained on. So the merged `tau` of a matrix (out, in)
minimizes

    sum_i || (tau - tau_i) tau_i^T ||_F^2 / || tau_i ||_F^2

and is added to the base. Other tensors get the mean of their task vectors, as in the authors' code. The loss is quadratic,
its gradient `2 (tau A - B)` with `A = sum_i tau_i^T tau_i / ||tau_i||^2` and `B = sum_i tau_i tau_i^T tau_i / ||tau_i||^2`.

- `solver="adam"`, the paper's: Adam from `sum_i tau_i`, 300 steps of 1e-5. A step moves an entry by about the learning rate,
  so 300 steps suit task vectors of about 1e-3, as fine-tuned transformers have; for larger ones raise it.
- `solver="exact"`, ours: the minimizer closest to the sum, by the pseudo-inverse of A.

Inputs are on the last axis, or the first one of a tensor called `kernel` (Flax), see `tna_jax.merging.rows`. Weights multiply
the terms of the loss, and the task vectors of the mean (ours). A task vector that is 0 has no term.
"""

from typing import Any

import numpy as np

from tna_jax.merging.average import combine, shifted
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option
from tna_jax.merging.rows import inputs_first

SOLVER = Option("solver", "adam", "the paper's 300 steps of Adam, or the exact minimizer", choices=("adam", "exact"))
STEPS = Option("steps", 300, "of Adam", low=0, high=100_000)
RATE = Option("learning_rate", 1e-5, "of Adam", low=0, above=True)


def wudi(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *,
    strength: float = 1.0, solver: str = "adam", steps: int = 300, learning_rate: float = 1e-5, **options: Any,
) -> Array:  # fmt: skip
    """Adds to the base the merged task vector of (M, out, in), or the mean where they are not matrices."""
    assert base is not None
    if base.ndim != 2 or not np.isfinite(vectors).all():
        return shifted(base, strength / len(vectors), combine(weights, vectors))
    turned = vectors.swapaxes(1, 2) if inputs_first(context.name) else vectors
    a, b = normal_equations(turned, weights)
    start = combine(np.ones_like(weights), turned)
    merged = adam(start, a, b, steps, learning_rate) if solver == "adam" else nearest_minimizer(start, a, b)
    return shifted(base, strength, merged.T if inputs_first(context.name) else merged)


def normal_equations(vectors: Array, weights: Array) -> tuple[Array, Array]:
    """Returns A (in, in) and B (out, in) of the loss's gradient `2 (tau A - B)`."""
    a = np.zeros((vectors.shape[2], vectors.shape[2]), vectors.dtype)
    b = np.zeros(vectors.shape[1:], vectors.dtype)
    for vector, weight in zip(vectors, weights, strict=True):
        norm = np.sum(np.square(vector), dtype=np.float64)
        if norm > 0:
            gram = vector.T @ vector * vectors.dtype.type(float(weight) / norm)
            a += gram
            b += vector @ gram
    return a, b


def adam(tau: Array, a: Array, b: Array, steps: int, learning_rate: float) -> Array:
    """Runs Adam (decays 0.9 and 0.999, epsilon 1e-8) on the loss from `tau` (out, in)."""
    dtype = tau.dtype.type
    first, second = np.zeros_like(tau), np.zeros_like(tau)
    for step in range(1, steps + 1):
        gradient = dtype(2) * (tau @ a - b)
        first += dtype(0.1) * (gradient - first)
        second += dtype(0.001) * (np.square(gradient) - second)
        scale = np.sqrt(second / dtype(1 - 0.999**step)) + dtype(1e-8)
        tau = tau - dtype(learning_rate / (1 - 0.9**step)) * first / scale
    return tau


def nearest_minimizer(tau: Array, a: Array, b: Array) -> Array:
    """Returns the minimizer of the loss that is closest to `tau` (out, in)."""
    inverse = np.linalg.pinv(a.astype(np.float64), rcond=1e-7, hermitian=True)
    return (tau - (tau @ a - b).astype(np.float64) @ inverse).astype(tau.dtype)


METHOD = Method(
    "wudi", "the task vector that disturbs the others least (matrices; others are averaged)", "2503.08099", wudi,
    needs_base=True, normalized=False, options=(STRENGTH, SOLVER, STEPS, RATE), in_pieces=False,
)  # fmt: skip

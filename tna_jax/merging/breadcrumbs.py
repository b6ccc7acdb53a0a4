"""Model Breadcrumbs: drop the smallest changes and the very largest ones (Davari and Belilovsky, arXiv 2312.06795).

Of each task vector a share `gamma` of the largest magnitudes is set to 0 as outliers, and of the rest the smallest, so that a
share `density` stays (the paper's beta is 1 - density - gamma; its gamma counts from below, 1 minus ours). The result is
`base + strength * sum_i w_i` times what stays. The paper ranks in each layer, which is scope `tensor`.

At most `floor(gamma * n)` entries are dropped as outliers: if that is 0 none is. Entries as large as a limit are treated
alike and stay.
"""

import dataclasses
from typing import Any

import numpy as np

from tna_jax.merging import magnitudes
from tna_jax.merging.average import combine
from tna_jax.merging.method import STRENGTH, Array, Context, Method, Option, Options

DENSITY = Option("density", 0.9, "share of each task vector's entries that stay", low=0, high=1, above=True)
GAMMA = Option("gamma", 0.01, "share of the largest entries that are dropped as outliers", low=0, high=1)


def _limits(size: int, options: Options) -> list[int]:
    """Ranks of the smallest and of the largest entry that stay."""
    top = min(int(options["gamma"] * size), size - 1)
    return [max(0, size - top - magnitudes.kept(options["density"], size)), size - 1 - top]


def breadcrumbs(
    base: Array | None, vectors: Array, weights: Array, context: Context, /, *, strength: float = 0.4, **options: Any
) -> Array:
    """Adds to the base the sum of the masked task vectors; `context.facts` are the (M, 2) smallest and largest magnitudes that stay."""
    assert base is not None
    size = magnitudes.magnitudes(vectors)
    low, high = (context.facts[:, i].reshape(-1, *(1,) * base.ndim) for i in (0, 1))
    stays = np.where((size < low) | (size > high), 0, vectors)
    return base + combine(weights * weights.dtype.type(strength), stays)


def _problem(options: Options) -> str | None:
    total = options["density"] + options["gamma"]
    return None if total <= 1 + 1e-9 else f"density + gamma must be at most 1, got {total:g}"


METHOD = Method(
    "breadcrumbs", "drops the smallest changes and the very largest ones, and adds the rest", "2312.06795", breadcrumbs,
    needs_base=True, normalized=False, options=(DENSITY, GAMMA, dataclasses.replace(STRENGTH, default=0.4)),
    surveys=magnitudes.surveys(_limits), problem=_problem,
)  # fmt: skip

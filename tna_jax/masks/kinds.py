"""The ways to draw anchors, by name."""

import functools
from collections.abc import Callable

from tna_jax.masks.draws import bernoulli, exact, neurons
from tna_jax.masks.operations import Mask
from tna_jax.masks.unit_inputs import share_per_unit

DRAWS: dict[str, Callable[..., Mask]] = {
    "bernoulli": bernoulli,
    "exact": exact,
    "neurons": functools.partial(neurons, apart=True),
    "per-unit": share_per_unit,
}
"""The ways to draw by name, each `(key, params, ratio, where) -> mask`, as `AnchorRecipe` draws."""

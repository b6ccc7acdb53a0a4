"""Training-time neuron alignment: networks that share fixed anchor weights train so that they can be averaged.

from tna_jax import tna_mask, masks
mask = masks.bernoulli(jax.random.key(0), params, ratio=0.4)
optimizer = optax.chain(tna_mask(mask), optax.adam(1e-3))
"""

from tna_jax import checks, masks
from tna_jax.averaging import greedy_soup, stack, uniform_soup, weighted_average
from tna_jax.connectivity import barrier, evaluate_path, pairs
from tna_jax.interpolation import line
from tna_jax.transform import anchored, apply_updates, tna_mask
from tna_jax.version import __version__ as __version__

__all__ = [
    "anchored", "apply_updates", "barrier", "checks", "evaluate_path", "greedy_soup", "line", "masks", "pairs", "stack", "tna_mask",
    "uniform_soup", "weighted_average",
]  # fmt: skip

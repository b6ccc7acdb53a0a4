"""Metrics along paths between models, all devices, one pass; and barriers.

>>> import jax.numpy as jnp
>>> members = {"w": jnp.array([[[1.0, -1.0]], [[-1.0, 1.0]]])}  # M = 2 linear classifiers of one feature
>>> network = lambda params, inputs: inputs @ params["w"]
>>> data = {"test": (jnp.array([[1.0], [2.0]]), jnp.array([0, 0]))}  # the first is always right, the second always wrong
>>> path = evaluate_paths(network, members, pairs(2), grid(5), data)["test"]  # P = 1 pair
>>> path.accuracy.tolist()
[[1.0, 1.0, 1.0, 0.0, 0.0]]
>>> barrier(path, metric="accuracy").tolist()  # (P,)
[0.25]
"""

from tna_jax.alphas import check_alphas, grid
from tna_jax.barriers import BarrierKind, Path, barrier
from tna_jax.connectivity.inputs import Data, Split
from tna_jax.connectivity.path import evaluate_path
from tna_jax.connectivity.paths import evaluate, evaluate_mixtures, evaluate_paths
from tna_jax.connectivity.points import pairs

__all__ = [
    "BarrierKind", "Data", "Path", "Split", "barrier", "check_alphas", "evaluate", "evaluate_mixtures", "evaluate_path", "evaluate_paths",
    "grid", "pairs",
]  # fmt: skip

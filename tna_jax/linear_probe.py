"""Linear probe: how well a linear classifier on frozen features does, in closed form.

[ours] Ridge regression on centered one-hot labels, of standardized features: one linear system instead of an optimizer, so the
score has no learning rate and no stopping rule, and many probes stack under `vmap`. The usual probe is logistic regression; the two rank
features alike, and the ridge has one number to choose, `decay`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Integer

from tna_jax.labels import check_labels


class Probe(NamedTuple):
    """A linear classifier on features (..., D): `((x - mean) / std) @ kernel + bias`."""

    mean: Float32[Array, " D"]
    """(D,)"""
    std: Float32[Array, " D"]
    """(D,)"""
    kernel: Float32[Array, "D C"]
    """(D, C)"""
    bias: Float32[Array, " C"]
    """(C,) the classes' shares."""


def fit(features: Float[Array, "N D"], labels: Integer[Array, "..."], num_classes: int, decay: float = 1e-2) -> Probe:
    """Computes the least-squares classifier of N examples.

    Args:
      features: (N, D) floats; a feature that never changes is given no weight.
      labels: (N,) integers in [0, C); classes that do not occur are never chosen.
      num_classes: C.
      decay: added to the diagonal of the features' correlation matrix, in (0, inf).

    Raises:
      ValueError: `decay` is not above 0, the numbers of features and labels differ, or labels are no classes (not looked at under `jit` and `vmap`).
    """
    if not decay > 0:
        raise ValueError(f"the decay of a probe must be above 0, got {decay}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"{features.shape[0]} feature vectors but labels of shape {labels.shape}")
    check_labels(labels, features.shape[0], classes=num_classes)
    x = features.astype(jnp.float32)
    mean, spread = jnp.mean(x, axis=0), jnp.std(x, axis=0)
    std = jnp.where(spread > 1e-6 * (1 + jnp.abs(mean)), spread, jnp.full_like(spread, np.inf))
    x = (x - mean[None]) / std[None]
    y = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    bias = jnp.mean(y, axis=0)
    count = np.float32(features.shape[0])
    correlation = x.T @ x / count + np.float32(decay) * jnp.eye(x.shape[1], dtype=jnp.float32)
    return Probe(mean, std, jax.scipy.linalg.solve(correlation, x.T @ (y - bias[None]) / count, assume_a="pos"), bias)


def scores(probe: Probe, features: Float[Array, "N D"]) -> Float32[Array, "N C"]:
    """Computes (N, C) scores of the classes, larger is likelier; those of an example sum to 1."""
    x = (features.astype(jnp.float32) - probe.mean[None]) / probe.std[None]
    return x @ probe.kernel + probe.bias[None]


def accuracy(probe: Probe, features: Float[Array, "N D"], labels: Integer[Array, " N"]) -> Float32[Array, ""]:
    """Computes the share of examples whose highest score is the label's: a float32 scalar. ValueError for labels that are no classes, as `fit`."""
    check_labels(labels, features.shape[0], classes=probe.bias.shape[0])
    return jnp.mean((jnp.argmax(scores(probe, features), axis=-1) == labels).astype(jnp.float32))

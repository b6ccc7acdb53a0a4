"""Metrics as sums and a count, so that every example counts once however the data is cut into batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer


class Metrics(NamedTuple):
    """Sums over examples, float32 on device, any leading axes; `a + b` of two batches is `merge(a, b)`.

    Laws: merging is associative up to rounding and `correct`, `count` are exact below 2^24 examples; padding (weight 0)
    changes nothing.
    """

    loss_sum: Any
    """(...,) summed cross-entropy, in nats."""
    correct: Any
    """(...,) number of examples whose largest logit is the label's; none where the loss is not finite."""
    count: Any
    """(...,) number of examples."""

    @property
    def loss(self) -> Any:
        """(...,) mean cross-entropy, in nats."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> Any:
        """(...,) share of correct examples, in [0, 1]."""
        return self.correct / self.count


def merge(a: Metrics, b: Metrics) -> Metrics:
    """Returns the metrics of both sets of examples together; leaves of any one shape (...)."""
    return Metrics(*(x + y for x, y in zip(a, b, strict=True)))


def cross_entropy(logits: Float[Array, "*B C"], labels: Integer[Array, "*B"]) -> Float32[Array, "*B"]:
    """Computes the softmax cross-entropy of each example in nats, in float32.

    Args:
      logits: (..., C), any float dtype.
      labels: (...,) integers in [0, C).
    """
    logits = logits.astype(jnp.float32)
    picked = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)  # a product, not a gather: 5x on the CPU
    return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits * picked, axis=-1)


def classification(
    logits: Float[Array, "*B C"], labels: Integer[Array, "*B"], weight: Bool[Array, "*B"] | Float[Array, "*B"]
) -> Metrics:
    """Computes the metrics of one batch under a padding mask.

    Args:
      logits: (B, C) floats, or (B, K, C) where each example has K labels.
      labels: (B,) or (B, K) integers in [0, C).
      weight: bool or float of the labels' shape, 0 for padding. Where it is 0 the logits may be anything, also non-finite.

    Returns:
      `Metrics` with float32 scalars.
    """
    weight = weight.astype(jnp.float32)
    losses = jnp.where(weight > 0, cross_entropy(logits, labels), np.float32(0))
    hits = ((jnp.argmax(logits, axis=-1) == labels) & jnp.isfinite(losses)).astype(jnp.float32)
    return Metrics(jnp.sum(losses * weight), jnp.sum(hits * weight), jnp.sum(weight))


def zero() -> Metrics:
    """Returns the metrics of no examples, float32 scalars."""
    return Metrics(jnp.float32(0), jnp.float32(0), jnp.float32(0))

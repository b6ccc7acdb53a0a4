"""One temperature of a classifier, fitted on held-out examples: averages of networks are often too unsure, or too sure, of right answers."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from tna_jax.labels import check_labels

STEPS = 60


def fit_temperature(
    logits: Float[Array | np.ndarray, "N C"],
    labels: Integer[Array | np.ndarray, " N"],
    lowest: float = 1e-3,
    highest: float = 1e3,
) -> float:
    """Computes the temperature T that makes the mean cross-entropy of `logits / T` least (Guo et al. 2017, arXiv 1706.04599).

    Of an average of networks this is the calibration of arXiv 2510.08023. The accuracy stays. The loss is convex in 1 / T, so that
    halving the interval of 1 / T by the sign of the slope finds the least one.

    Args:
      logits: (N, C) floats of examples that were not trained on.
      labels: (N,) integers in [0, C).
      lowest, highest: the interval in which T is looked for; its end where the loss falls beyond it.

    Returns:
      T, above 0.

    Raises:
      ValueError: no examples, shapes that do not fit, labels that are no classes, logits that are NaN, or an interval that is none.

    >>> logits = np.log(np.array([[0.9, 0.1]] * 10)) * 3  # three times too sure
    >>> round(fit_temperature(logits, np.array([0] * 9 + [1])), 2)
    3.0
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if not 0 < lowest < highest:
        raise ValueError(f"temperatures lie in an interval above 0, got [{lowest}, {highest}]")
    _check(logits, labels)
    if np.isnan(logits).any() or not np.isfinite(logits.max(1)).all():
        raise ValueError(
            "logits are numbers, or minus infinity for a class that cannot occur; some are NaN, or have no finite one in a row"
        )
    logits = logits.astype(np.float64) - logits.max(1, keepdims=True)
    right = logits[np.arange(len(labels)), labels]
    if not np.isfinite(right).all():
        raise ValueError(
            f"{int((~np.isfinite(right)).sum())} labels are classes whose logit is minus infinity: their loss is infinite at any temperature"
        )
    finite = np.where(np.isfinite(logits), logits, 0)

    def slope(inverse: float) -> float:
        weights = np.exp(logits * inverse)
        products = np.where(weights > 0, weights * finite, 0)  # a class that cannot occur adds nothing
        return float(((products.sum(1) / weights.sum(1)) - right).mean())

    low, high = 1 / highest, 1 / lowest
    for _ in range(STEPS):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / np.sqrt(low * high))


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"expected logits (N, C) and labels (N,) of at least one example, got {logits.shape}, {labels.shape}"
        )
    check_labels(labels, len(logits), classes=logits.shape[1])


def cross_entropy(
    logits: Float[Array | np.ndarray, "N C"], labels: Integer[Array | np.ndarray, " N"], temperature: float = 1.0
) -> float:
    """Computes the mean cross-entropy of `logits / temperature`, in nats; arguments and errors as in `fit_temperature`."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(logits, labels)
    scaled = jnp.asarray(logits, jnp.float32) / np.float32(temperature)
    losses = -jnp.take_along_axis(jax.nn.log_softmax(scaled), jnp.asarray(labels, jnp.int32)[:, None], 1)
    return float(losses.mean())

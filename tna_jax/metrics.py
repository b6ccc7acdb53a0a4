"""Metrics as sums and a count, so that every example counts once however the data is cut into batches.

`Metrics` are those of classification; `Sums` those of any other objective (see `tna_jax.objectives`). Both have `loss`,
`count`, `names` and `value(name)`, any leading axes, and merge by adding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer

from tna_jax import labels as labels_lib


@dataclasses.dataclass(frozen=True)
class Metric:
    """One named number of an objective.

    Attributes:
      name: as in `value(name)`.
      values: (outputs, targets) -> values of the shape of the losses, or (B,), one for each example; or a pair of arrays of
        one such shape, whose sums are divided by each other (F1, Dice). `None` for a metric derived from another.
      larger_is_better: whether larger is better.
      unit: what an axis says: `nats a token`.
      of, transform: a derived metric is `transform` of the mean of metric `of` (perplexity: exp of the loss); with NumPy or
        JAX arrays.
    """

    name: str
    values: Callable[[Any, Any], Any] | None = None
    larger_is_better: bool = False
    unit: str = ""
    of: str = ""
    transform: Callable[[Any], Any] | None = None


LOSS = Metric("loss", unit="nats")
ACCURACY = Metric("accuracy", larger_is_better=True, unit="share of correct examples")


def _named(metrics: tuple[Metric, ...], name: str) -> Metric:
    for metric in metrics:
        if metric.name == name:
            return metric
    raise ValueError(f"there is no metric {name!r}: known are {', '.join(metric.name for metric in metrics)}")


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

    @property
    def names(self) -> tuple[str, ...]:
        """What `value` knows."""
        return LOSS.name, ACCURACY.name

    def value(self, name: str) -> Any:
        """(...,) `loss` or `accuracy`; ValueError for other names."""
        return self.loss if self.metric(name) is LOSS else self.accuracy

    def metric(self, name: str) -> Metric:
        """What `name` is: its unit, and whether larger is better; ValueError for a name there is not."""
        return _named((LOSS, ACCURACY), name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """Named sums and counts over examples (tokens, pixels), float32 on device, any leading axes. Laws as for `Metrics`."""

    sums: dict[str, tuple[Any, Any]]
    """(sum, count) by the name of the metric, (...,) each."""
    metrics: tuple[Metric, ...] = dataclasses.field(metadata={"static": True})
    """All there are, the loss first; those that are derived have no sum of their own."""

    @property
    def loss_sum(self) -> Any:
        """(...,) summed loss."""
        return self.sums[LOSS.name][0]

    @property
    def count(self) -> Any:
        """(...,) what the loss is a mean over: examples, tokens or pixels."""
        return self.sums[LOSS.name][1]

    @property
    def loss(self) -> Any:
        """(...,) mean loss."""
        return self.value(LOSS.name)

    @property
    def accuracy(self) -> Any:
        """(...,) the metric of that name; ValueError for objectives without it."""
        return self.value(ACCURACY.name)

    @property
    def names(self) -> tuple[str, ...]:
        """What `value` knows, the loss first."""
        return tuple(metric.name for metric in self.metrics)

    def value(self, name: str) -> Any:
        """(...,) the metric of that name; ValueError for a name there is not."""
        metric = self.metric(name)
        total, count = self.sums[metric.of or name]
        mean = total / count
        return mean if metric.transform is None else metric.transform(mean)

    def __getitem__(self, name: str) -> Any:
        """As `value`."""
        return self.value(name)

    def metric(self, name: str) -> Metric:
        """As `Metrics.metric`."""
        return _named(self.metrics, name)


AnyMetrics = Metrics | Sums
"""Of classification, or of another objective."""

_Counted = TypeVar("_Counted", Metrics, Sums, AnyMetrics)


def merge(a: _Counted, b: _Counted) -> _Counted:
    """Returns the metrics of both sets of examples together; leaves of any one shape (...)."""
    both: _Counted = jax.tree.map(lambda x, y: x + y, a, b)
    return both


def mean(total: Float[Array, ""], count: Float[Array, ""]) -> Float[Array, ""]:
    """Returns `total / count`, a weighted mean, or `total`, which is 0 then, where nothing counts; counts below 1 are sums of small weights."""
    return total / jnp.where(count > 0, count, jnp.ones_like(count))


def cross_entropy(
    logits: Float[Array, "*B C"], labels: Integer[Array, "..."] | Bool[Array, "..."]
) -> Float32[Array, "*B"]:
    """Computes the softmax cross-entropy of each example in nats, in float32.

    Args:
      logits: (..., C), any float dtype; minus infinity for a class that cannot occur.
      labels: (...,) integers of any type in [0, C); the loss of one outside is NaN.

    Raises:
      ValueError: labels of another shape, or that are not integers.
    """
    logits, labels = logits.astype(jnp.float32), _class_numbers(logits, labels)
    classes = logits.shape[-1]
    # A selection and a sum, not a gather: 5x on the CPU. Not a product: minus infinity times 0 is NaN.
    picked = jnp.where(jax.nn.one_hot(labels, classes, dtype=bool), logits, np.float32(0))
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.sum(picked, axis=-1)
    return jnp.where((labels >= 0) & (labels < classes), losses, np.float32(np.nan))


def correct(logits: Float[Array, "*B C"], labels: Integer[Array, "..."] | Bool[Array, "..."]) -> Bool[Array, "*B"]:
    """Returns whether each example's largest logit is the label's; arguments as in `cross_entropy`."""
    hits: Array = jnp.argmax(logits, axis=-1).astype(jnp.int32) == _class_numbers(logits, labels)
    return hits


def _class_numbers(logits: Array, labels: Any) -> Array:
    numbers = labels_lib.class_numbers(labels)
    if numbers.shape != logits.shape[:-1]:
        raise ValueError(
            f"logits {logits.shape} need integer labels {logits.shape[:-1]}, one for each row of logits; got the shape "
            f"{numbers.shape}{labels_lib.shape_hint(numbers.shape, logits.shape[:-1])}"
        )
    return numbers


def classification(
    logits: Float[Array, "*B C"],
    labels: Integer[Array, "..."] | Bool[Array, "..."],
    weight: Bool[Array, "..."] | Float[Array, "..."],
) -> Metrics:
    """Computes the metrics of one batch under a padding mask.

    Args:
      logits: (B, C) floats, or (B, K, C) where each example has K labels.
      labels: (B,) or (B, K) integers of any type in [0, C).
      weight: bool or float of the labels' shape, 0 for padding. Where it is 0 the logits may be anything, also non-finite.

    Returns:
      `Metrics` with float32 scalars.

    Raises:
      ValueError: as `cross_entropy`, or a weight of another shape than the labels.
    """
    if weight.shape != labels.shape:
        raise ValueError(f"labels {labels.shape} need a weight of their shape, got {weight.shape}")
    weight = weight.astype(jnp.float32)
    losses = jnp.where(weight > 0, cross_entropy(logits, labels), np.float32(0))
    hits = (correct(logits, labels) & jnp.isfinite(losses)).astype(jnp.float32)
    return Metrics(jnp.sum(losses * weight), jnp.sum(hits * weight), jnp.sum(weight))


def zero() -> Metrics:
    """Returns the metrics of no examples, float32 scalars."""
    return Metrics(jnp.float32(0), jnp.float32(0), jnp.float32(0))

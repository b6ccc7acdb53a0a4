"""What is trained and measured: a loss of outputs and targets, and named metrics, each a sum and a count.

>>> outputs, targets = jnp.array([[1.0], [2.0], [9.0]]), jnp.array([[1.0], [0.0], [0.0]])
>>> found = regression().sums(outputs, targets, jnp.array([1.0, 1.0, 0.0]))  # the third example is padding
>>> float(found.loss), float(found["absolute_error"]), float(found.count)
(2.0, 1.0, 2.0)

An objective of one's own is a loss:

    def smooth(outputs, targets):  # (B, D) each -> (B,)
        return optax.huber_loss(outputs, targets).mean(-1)

    trainer = Trainer(network, optimizer, 64, objective=Objective("huber", smooth))

Every function is made of arrays and is called under `jit`. Equal arguments give one and the same objective, so that programs
compiled with it are used again; keep yours in a variable for the same reason.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, PyTree, Shaped

from tna_jax import labels as labels_lib
from tna_jax import metrics, trees
from tna_jax.metrics import LOSS, AnyMetrics, Metric, Sums

Targets: TypeAlias = PyTree[Shaped[Array | np.ndarray, "B ..."]]
"""What is to be predicted: arrays (B, ...), whose leading axis is the example."""

IGNORED_TOKEN = -100
"""The target of tokens that do not count, as in PyTorch and Hugging Face."""
IGNORED_PIXEL = 255
"""The label of pixels that do not count, as in Pascal VOC and Cityscapes."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and metrics. Hashable: it selects compiled programs.

    Attributes:
      name: for messages and figures.
      loss: (outputs, targets) -> losses, one for each example, (B,), or for each token or pixel, (B, ...), of the shape of
        `counted`. Where nothing counts it may be anything, also non-finite.
      metrics: further numbers by name; see `Metric`.
      counted: targets -> bool or float (B, ...), which tokens or pixels count; default: every example once.
      unit: of the loss, for axes.
    """

    name: str
    loss: Callable[[Any, Any], Array]
    metrics: tuple[Metric, ...] = ()
    counted: Callable[[Any], Array] | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        names = [LOSS.name, *(metric.name for metric in self.metrics)]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics of {self.name} need names of their own, and not {LOSS.name!r}; got {names[1:]}")
        summed = {LOSS.name, *(metric.name for metric in self.metrics if metric.values is not None)}
        for metric in self.metrics:
            if (metric.values is None) == (metric.of not in summed):
                raise ValueError(
                    f"metric {metric.name!r} of {self.name} needs `values`, or the name of a metric that has them in `of`"
                )

    @property
    def classes(self) -> bool:
        """Whether targets are class labels (B,), for what needs those: FedLC, FedDF."""
        return False

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The loss and the others."""
        return (Metric(LOSS.name, unit=self.unit), *self.metrics)

    def metric(self, name: str) -> Metric:
        """Returns the metric of that name; ValueError for a name there is not."""
        return self.zero().metric(name)

    def weights(self, targets: Targets, weight: Shaped[Array, " B *K"]) -> Float32[Array, "B ..."]:
        """Returns what each loss counts: the weight of its example, 0 where `counted` says so."""
        weight = weight.astype(jnp.float32)
        if self.counted is None:
            return weight
        counted = self.counted(targets).astype(jnp.float32)
        if counted.shape[: weight.ndim] != weight.shape:
            raise ValueError(
                f"{self.name}: {counted.shape} of the targets count, but the weight has the shape {weight.shape}"
            )
        return weight.reshape(weight.shape + (1,) * (counted.ndim - weight.ndim)) * counted

    def sums(self, outputs: Any, targets: Targets, weight: Shaped[Array, " B *K"]) -> AnyMetrics:
        """Computes the loss and all metrics of a batch.

        Args:
          outputs: of the network.
          targets: (B, ...) in every leaf.
          weight: (B,) or, where each example has K losses, (B, K); 0 for padding, whose outputs may be anything.

        Returns:
          `Metrics` of classification, else `Sums`, float32 scalars.

        Raises:
          ValueError: losses or values of another shape than what counts.
        """
        weights = self.weights(targets, weight)
        losses = jnp.asarray(self.loss(outputs, targets))
        check_shape(f"the losses of {self.name}", losses.shape, weights.shape)
        sums = {LOSS.name: (_total(losses, weights), jnp.sum(weights))}
        for metric in self.metrics:
            if metric.values is not None:
                sums[metric.name] = _ratio(metric, metric.values(outputs, targets), weights, weight.astype(jnp.float32))
        return Sums(sums, self.all_metrics)

    def zero(self) -> AnyMetrics:
        """Returns the metrics of no examples, float32 scalars."""
        names = [LOSS.name, *(metric.name for metric in self.metrics if metric.values is not None)]
        return Sums({name: (jnp.float32(0), jnp.float32(0)) for name in names}, self.all_metrics)


def _total(values: Array, weights: Array) -> Array:
    """The weighted sum, where values without weight may be anything."""
    return jnp.sum(jnp.where(weights > 0, values.astype(jnp.float32), np.float32(0)) * weights)


def _ratio(metric: Metric, values: Any, weights: Array, weight: Array) -> tuple[Array, Array]:
    above, below = values if isinstance(values, tuple) else (values, None)
    above = jnp.asarray(above)
    used = weight if above.shape != weights.shape and above.shape == weight.shape else weights
    for part in (above, *(() if below is None else (below,))):
        check_shape(f"the values of {metric.name}", jnp.shape(part), used.shape)
    return _total(above, used), jnp.sum(used) if below is None else _total(below, used)


def check_shape(what: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raises ValueError where losses or values are not one for each example, token or pixel that counts: they are never broadcast."""
    if shape != expected:
        raise ValueError(
            f"{what} have the shape {shape}, expected {expected}: one for each example, token or pixel that counts"
        )


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy in nats and accuracy, of integer labels (B,), or (B, K) under weights (B, K). The default everywhere.

    Its loss and metrics cannot be replaced: ValueError. An `Objective` has others.
    """

    name: str = "classification"
    loss: Callable[[Any, Any], Array] = metrics.cross_entropy
    unit: str = "nats"

    def __post_init__(self) -> None:
        if self.loss is not metrics.cross_entropy or self.metrics or self.counted is not None:
            raise ValueError(
                "Classification is cross-entropy and accuracy of every example; for another loss, metrics or `counted` use "
                'Objective("name", loss, metrics, counted)'
            )

    @property
    def classes(self) -> bool:
        return True

    def sums(self, outputs: Any, targets: Targets, weight: Shaped[Array, " B *K"]) -> AnyMetrics:
        return metrics.classification(outputs, targets, weight)

    def zero(self) -> AnyMetrics:
        return metrics.zero()


CLASSIFICATION = Classification()


@functools.lru_cache
def next_token(ignore: int = IGNORED_TOKEN) -> Objective:
    """Returns language modeling: nats a token, perplexity, and the share of tokens predicted right.

    Outputs (B, T, V) are logits, targets (B, T) the token that follows each position (see `next_tokens`), `ignore` where
    nothing is to be predicted: those tokens do not count.
    """
    return _tokens("next-token", "nats a token", ignore)


@functools.lru_cache
def masked_lm(ignore: int = IGNORED_TOKEN) -> Objective:
    """Returns masked-language modeling: as `next_token`, over hidden tokens.

    Targets are the hidden tokens, `ignore` elsewhere, (B, T) with logits (B, T, V); or those at K positions, (B, K) with logits
    (B, K, V) and a weight (B, K), as `tna_jax.masked_lm.mask_tokens` draws them.
    """
    return _tokens("masked-lm", "nats a hidden token", ignore)


@functools.lru_cache
def segmentation(ignore: int = IGNORED_PIXEL) -> Objective:
    """Returns segmentation: cross-entropy and accuracy a pixel, of logits (B, H, W, C) and labels (B, H, W), `ignore` does not count."""
    accuracy = Metric("accuracy", _hits, larger_is_better=True, unit="share of correct pixels")
    return Objective("segmentation", _labeled, (accuracy,), functools.partial(_differs, ignore=ignore), "nats a pixel")


@functools.lru_cache
def regression(loss: Literal["squared", "absolute"] = "squared") -> Objective:
    """Returns regression: squared and absolute error, of which one is the loss; the mean over an example's values, so that it counts once.

    Outputs and targets have one shape (B, ...); outputs (B, 1) go with targets (B,).

    Raises:
      ValueError: an unknown loss.
    """
    losses = {"squared": _squared, "absolute": _absolute}
    if loss not in losses:
        raise ValueError(f"unknown loss of regression {loss!r}: known are {', '.join(losses)}")
    named = tuple(Metric(f"{name}_error", error, unit=f"{name} error") for name, error in losses.items())
    return Objective("regression", losses[loss], named, unit=f"{loss} error")


@functools.lru_cache
def multi_label() -> Objective:
    """Returns multi-label classification: targets (B, L) of 0 and 1 (or between), logits (B, L); outside of that the loss is NaN.

    The loss is the mean binary cross-entropy of an example's labels, in nats; `accuracy` the share of labels right,
    `exact_match` that of examples whose labels are all right, `f1` the F1 over all labels of all examples (micro).
    """
    named = (
        Metric(
            "accuracy", lambda z, y: jnp.mean(_right(z, y), axis=-1, dtype=jnp.float32), True, "share of correct labels"
        ),
        Metric("exact_match", lambda z, y: jnp.all(_right(z, y), axis=-1), True, "share of exact examples"),
        Metric("f1", _f1, True, "F1"),
    )
    return Objective("multi-label", _binary, named, unit="nats a label")


def check_examples(objective: Objective, inputs: Any, targets: Any, what: str = "", classes: int | None = None) -> int:
    """Returns N, the number of examples of inputs and targets (N, ...); ValueError where they do not go together, in front `what`.

    Class labels are looked at closely, see `labels.check_labels`; `classes` is their number, if it is known.
    """
    if objective.classes:
        labels_lib.check_labels(targets, _count_inputs(inputs, targets, what), what, classes)
    return check_aligned(inputs, targets, what)


def check_aligned(inputs: Any, targets: Any, what: str = "") -> int:
    """Returns N as `check_examples` does, of targets of any objective."""
    examples = _count_inputs(inputs, targets, what)
    labels_lib.check_numeric(targets, what)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(targets)]
    if not shapes or any(shape[:1] != (examples,) for shape in shapes):
        raise ValueError(f"{what}{examples} inputs but targets of shape {', '.join(map(str, shapes))}")
    return examples


def _count_inputs(inputs: Any, targets: Any, what: str) -> int:
    """N of inputs (N, ...); ValueError where they have none, or are no arrays of numbers."""
    refuse_lists(inputs, targets, what)
    trees.require_exact({"inputs": inputs, "targets": targets})
    sizes = [np.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)]
    examples = sizes[0][0] if sizes and len(set(sizes)) == 1 and sizes[0] else None
    if examples is None:
        raise ValueError(f"{what}inputs need one number of examples in front, got {[*sizes]}")
    words = sorted(
        {str(leaf.dtype) for leaf in jax.tree.leaves(inputs) if getattr(leaf.dtype, "kind", "") in ("U", "S", "O")}
    )
    if words:
        raise ValueError(
            f"{what}inputs of type {', '.join(words)}: a network takes numbers; of texts the ids of their tokens"
        )
    return int(examples)


def refuse_lists(inputs: Any, targets: Any, what: str = "") -> None:
    """Raises ValueError for lists of numbers, which are trees of single numbers and no arrays, and for what is no array at all."""
    odd = {type(part).__name__ for part in (inputs, targets) if isinstance(part, Iterator)}
    leaves = [] if odd else jax.tree.leaves((inputs, targets))
    if any(isinstance(leaf, (int, float)) for leaf in leaves):
        raise ValueError(f"{what}lists of numbers are trees here; give arrays: np.asarray(inputs), np.asarray(targets)")
    odd |= {type(leaf).__name__ for leaf in leaves if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))}
    if odd:
        raise ValueError(
            f"{what}inputs or targets of type {', '.join(sorted(odd))}: give arrays (N, ...), np.stack(list(examples)), or a stream of "
            "examples (tna_jax.streaming)"
        )


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError unless a batch has a whole number of examples, at least one."""
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size is a whole number of examples, at least 1; got {batch_size!r}")


BY_NAME: Mapping[str, Callable[..., Objective]] = {
    "classification": lambda: CLASSIFICATION, "next-token": next_token, "masked-lm": masked_lm, "regression": regression,
    "multi-label": multi_label, "segmentation": segmentation,
}  # fmt: skip
"""What makes each shipped objective; arguments are its options."""


def next_tokens(
    tokens: Integer[Array | np.ndarray, "N T"], padding: int | None = None, ignore: int = IGNORED_TOKEN
) -> tuple[Integer[Array | np.ndarray, "N S"], Integer[Array | np.ndarray, "N S"]]:
    """Returns inputs and targets (N, T - 1) of `next_token` for sequences of tokens: what follows each, `ignore` for `padding`.

    Raises:
      ValueError: tokens that are no integers (N, T), or sequences of fewer than two.

    >>> next_tokens(np.array([[5, 6, 7, 0]]), padding=0)[1].tolist()
    [[6, 7, -100]]
    """
    if tokens.ndim != 2 or tokens.shape[1] < 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"tokens are integers (N, T), two or more in a sequence; got {tokens.dtype} {tokens.shape}")
    xp: Any = np if isinstance(tokens, np.ndarray) else jnp
    targets = tokens[:, 1:].astype(np.int32)
    return tokens[:, :-1], targets if padding is None else xp.where(targets == padding, np.int32(ignore), targets)


def _exp(mean: Any) -> Any:
    return np.exp(mean) if isinstance(mean, (np.ndarray, np.generic)) else jnp.exp(mean)


def _tokens(name: str, unit: str, ignore: int) -> Objective:
    perplexity = Metric("perplexity", of=LOSS.name, transform=_exp, unit="perplexity")
    accuracy = Metric("accuracy", _hits, larger_is_better=True, unit="share of correct tokens")
    return Objective(name, _labeled, (perplexity, accuracy), functools.partial(_differs, ignore=ignore), unit)


def _differs(targets: Integer[Array, "..."], ignore: int) -> Bool[Array, "..."]:
    return targets.astype(jnp.int32) != ignore


def _labeled(logits: Float[Array, "... C"], labels: Integer[Array, "..."]) -> Float32[Array, "..."]:
    if logits.shape[:-1] != labels.shape or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"outputs {logits.shape} need integer targets of the shape {logits.shape[:-1]}, got {labels.dtype} {labels.shape}"
            + labels_lib.shape_hint(labels.shape, logits.shape[:-1])
        )
    return metrics.cross_entropy(logits, labels)


def _hits(logits: Float[Array, "... C"], labels: Integer[Array, "..."]) -> Bool[Array, "..."]:
    """Right, and of a finite loss."""
    return metrics.correct(logits, labels) & jnp.isfinite(metrics.cross_entropy(logits, labels))


def _error(outputs: Array, targets: Array) -> Float32[Array, "B ..."]:
    if outputs.shape == (*targets.shape, 1):
        outputs = outputs[..., 0]
    if outputs.shape != targets.shape:
        raise ValueError(f"regression needs outputs and targets of one shape, got {outputs.shape} and {targets.shape}")
    return outputs.astype(jnp.float32) - targets.astype(jnp.float32)


def _per_example(values: Array) -> Float32[Array, " B"]:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _squared(outputs: Array, targets: Array) -> Float32[Array, " B"]:
    return _per_example(jnp.square(_error(outputs, targets)))


def _absolute(outputs: Array, targets: Array) -> Float32[Array, " B"]:
    return _per_example(jnp.abs(_error(outputs, targets)))


def _binary(logits: Float[Array, "B L"], targets: Array) -> Float32[Array, " B"]:
    if logits.shape != targets.shape:
        raise ValueError(
            f"multi-label needs logits and targets (B, L) of one shape, got {logits.shape} and {targets.shape}"
        )
    z, y = jnp.minimum(logits.astype(jnp.float32), np.finfo(np.float32).max), targets.astype(jnp.float32)
    losses = jax.nn.softplus(z) - jnp.where(
        y == 0, np.float32(0), z * y
    )  # a logit of minus infinity: the label cannot occur
    return jnp.mean(jnp.where((y >= 0) & (y <= 1), losses, np.float32(np.nan)), axis=-1)


def _right(logits: Array, targets: Array) -> Bool[Array, "B L"]:
    return ((logits > 0) == (targets > 0)) & ~jnp.isnan(logits)


def _f1(logits: Array, targets: Array) -> tuple[Float32[Array, " B"], Float32[Array, " B"]]:
    """Twice the true positives, and positives found plus positives there are."""
    said, true = logits > 0, targets > 0
    both = 2 * jnp.sum(said & true, axis=-1, dtype=jnp.float32)
    return both, jnp.sum(said, axis=-1, dtype=jnp.float32) + jnp.sum(true, axis=-1, dtype=jnp.float32)

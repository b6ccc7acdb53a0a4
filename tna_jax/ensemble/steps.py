"""One step of one member: its batch in its own order, its gradient, its update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Integer, Key, PyTree, Shaped

from tna_jax import metrics, networks, objectives, optimizers, prng, transform
from tna_jax.ensemble.dtypes import as_types, at_least_float32
from tna_jax.ensemble.members import Members, count_examples
from tna_jax.ensemble.trainer import Batch, Trainer, extra_arguments
from tna_jax.masks import Params
from tna_jax.masks.freezing import with_frozen, without_frozen
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State

AUGMENT = 1
"""Stream of an epoch's key for augmentation; the key itself draws the order."""


PREPARE = 2
"""Stream of an epoch's key for what `Trainer.prepare` draws."""


NETWORK = 3
"""Stream of an epoch's key for what the network draws in training (dropout)."""


@prng.same_bits
def batch_indices(
    data_key: Key[Array, ""], epoch: int | Integer[Array | np.ndarray | np.number, ""], examples: int, batch_size: int
) -> tuple[Int32[Array, "S B"], Float32[Array, "S B"]]:
    """Returns the examples of each step of an epoch, in a member's order.

    Args:
      data_key: one typed key; the order is the same on any device and under any default generator, see `prng.threefry`.
      epoch: int scalar, may be traced.
      examples: N, the number of examples.
      batch_size: B, in [1, N].

    Returns:
      Indices (S, B) int32 in [0, N) and weights (S, B) float32, 0 for the padding of the last batch; S = ceil(N / B).
    """
    steps = -(-examples // batch_size)
    order_key = jax.random.fold_in(prng.threefry(data_key), epoch)
    permuted = jax.random.permutation(order_key, examples).astype(jnp.int32)
    padding = steps * batch_size - examples
    indices = jnp.concatenate([permuted, jnp.zeros(padding, jnp.int32)])
    weights = jnp.concatenate([jnp.ones(examples, jnp.float32), jnp.zeros(padding, jnp.float32)])
    return indices.reshape(steps, batch_size), weights.reshape(steps, batch_size)


def train_step(
    trainer: Trainer,
    member: Members,
    inputs: PyTree[Shaped[Array, "B ..."]],
    labels: PyTree[Shaped[Array, "B ..."]],
    weight: Float[Array, " B *K"],
    *,
    padded: bool = True,
    key: Key[Array, ""] | None = None,
) -> tuple[Members, AnyMetrics]:
    """Takes one optimizer step of one member (no leading axis) on one batch: gradient of the weighted mean loss.

    Args:
      trainer: the common part.
      member: its state before the step.
      inputs: (B, ...) in every leaf.
      labels: (B,) integers, or (B, K) where an example has K of them; of another objective its targets, (B, ...) in every leaf.
      weight: float (B,), or (B, K) where an example has K labels; 0 for padding.
      padded: whether any weight of the epoch is 0; else batch statistics need no mask.
      key: of this step, for networks that want one (dropout).

    Returns:
      The member after the step, and the batch's metrics before it.
    """

    def loss(
        params: Params, inputs: Any, labels: Any, weight: Array, total: Array | None, key: Array | None
    ) -> tuple[Array, tuple[AnyMetrics, State]]:
        real = weight if padded else None
        params = with_frozen(params, member.params, trainer.freeze)
        outputs, state = networks.train(trainer.network, params, member.state, inputs, real, key)
        sums = trainer.objective.sums(outputs, labels, weight)
        summed = sums.loss_sum
        if trainer.loss is not None:
            losses = jnp.asarray(trainer.loss(outputs, labels, member.hyper))
            weights = trainer.objective.weights(labels, weight)
            objectives.check_shape("the losses of the trainer's `loss`", losses.shape, weights.shape)
            summed = jnp.sum(jnp.where(weights > 0, losses, np.float32(0)) * weights)
        return metrics.mean(summed, sums.count if total is None else total), (sums, state)

    gradient, batch = jax.value_and_grad(loss, has_aux=True), (inputs, labels, weight)
    trained = without_frozen(member.params, trainer.freeze)
    if trainer.accumulate == 1:
        (value, (sums, state)), gradients = gradient(trained, *batch, None, key)
    else:
        value, gradients, sums = _accumulated(trainer, gradient, trained, batch, key)
        state = member.state
    gradients = optimizers.steepest(gradients)

    def batch_loss(params: Params) -> Array:
        if trainer.accumulate == 1:
            return loss(params, *batch, None, key)[0]
        summed: Array = _sum_of_parts(lambda *part: loss(params, *part)[0], trainer, batch, key)
        return summed

    optimizer = trainer.anchored_optimizer(member.hyper)
    extra = extra_arguments(batch_loss, gradients, value)
    updates, opt_state = optimizer.update(gradients, member.opt_state, trained, mask=member.mask, **extra)
    trained = transform.apply_updates(trained, updates, member.mask)
    params = with_frozen(trained, member.params, trainer.freeze)
    # What is trained keeps its types from step to step: one program, and a loop can carry it.
    opt_state, state = as_types(opt_state, member.opt_state), as_types(state, member.state)
    return member._replace(params=params, opt_state=opt_state, state=state), sums


def _accumulated(
    trainer: Trainer, gradient: Callable[..., Any], params: Params, batch: Batch, key: Array | None
) -> tuple[Array, Params, AnyMetrics]:
    """The batch's loss, gradient and metrics as sums over equal parts of it, one after the other."""

    def of_part(*part: Any) -> tuple[Array, Params, AnyMetrics]:
        (value, (sums, _)), gradients = gradient(params, *part)
        wide = jax.tree.map(lambda g: g.astype(at_least_float32(g.dtype)), gradients)
        return value, wide, sums

    value, gradients, sums = _sum_of_parts(of_part, trainer, batch, key)
    return value, as_types(gradients, params), sums


def _sum_of_parts(function: Callable[..., Any], trainer: Trainer, batch: Batch, key: Array | None) -> Any:
    """The sum of `function(inputs, labels, weight, total, key)` over equal parts of a batch, whose losses are divided by `total`."""
    total = jnp.sum(trainer.objective.weights(*batch[1:]))
    parts = trainer.accumulate
    cut = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)

    def add(carry: Any, numbered: tuple[Array, Batch]) -> tuple[Any, None]:
        number, part = numbered
        summand = function(*part, total, None if key is None else jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, carry, summand), None

    first = jax.tree.map(lambda x: x[0], cut)
    shapes = jax.eval_shape(lambda part: function(*part, total, key), first)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    summed, _ = jax.lax.scan(add, zero, (jnp.arange(parts, dtype=jnp.int32), cut))
    return summed


def batch_step(
    trainer: Trainer, member: Members, data: Any, epoch: Array, number: Array, index: Array, weight: Array
) -> tuple[Members, AnyMetrics]:
    """Step `number` of an epoch: gathers the batch, augments and prepares it, trains on it."""
    inputs, labels = member.member_data or data
    batch, targets = jax.tree.map(lambda x: x[index], (inputs, labels))
    padded = count_examples(inputs) % trainer.batch_size != 0
    return numbered_step(trainer, member, batch, targets, weight, epoch, number, padded=padded)


def numbered_step(
    trainer: Trainer,
    member: Members,
    inputs: PyTree[Shaped[Array, "B ..."]],
    targets: PyTree[Shaped[Array, "B ..."]],
    weight: Float[Array, " B"],
    epoch: Integer[Array, ""],
    number: Integer[Array, ""],
    *,
    padded: bool = True,
) -> tuple[Members, AnyMetrics]:
    """Takes step `number` of an epoch of one member (no leading axis): augments and prepares the batch with its keys, trains on it.

    Args:
      trainer, member, inputs, targets, weight, padded: as in `train_step`.
      epoch, number: int32 scalars; what is drawn at random depends on them and on the member's data key.

    Returns:
      As `train_step`.
    """
    batch = inputs
    key = jax.random.fold_in(member.data_keys, epoch)
    wanted = networks.wants_key(trainer.network)
    network_key = jax.random.fold_in(jax.random.fold_in(key, NETWORK), number) if wanted else None
    if trainer.augment is not None:
        batch = trainer.augment(jax.random.fold_in(jax.random.fold_in(key, AUGMENT), number), batch)
    if trainer.prepare is not None:
        key = jax.random.fold_in(jax.random.fold_in(key, PREPARE), number)
        batch, targets, weight = trainer.prepare(key, member.hyper, (batch, targets, weight))
    return train_step(trainer, member, batch, targets, weight, padded=padded, key=network_key)

"""Many models, one program: M networks with their own initial values, masks, data order and hyper-parameters.

The leading axis M of every leaf is the model. A member's numbers depend on its own slice alone, so a member that diverges
disturbs no other, and `map`, `vmap` and `loop` (see `tna_jax.placement`) only change the speed. Anchored entries are
copied from step to step, never computed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tna_jax import metrics, placement, transform
from tna_jax.masks import Mask, Params
from tna_jax.metrics import Metrics
from tna_jax.placement import Placement

Apply = Callable[[Params, jax.Array], jax.Array]
"""The network: parameters and a batch of inputs (B, ...) to logits (B, C)."""

Hyper = dict[str, jax.Array]
"""A member's hyper-parameters, scalars by name."""


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What all members of an ensemble have in common.

    Attributes:
      apply: the network, also where inputs are scaled: it is given the stored inputs (say uint8 images) as they are.
      optimizer: an optax transformation, or a function from a member's `Hyper` to one, for hyper-parameters that differ
        between members: `lambda hyper: optax.sgd(hyper["learning_rate"])`. It is run under `anchored`.
      batch_size: examples per step. The last batch of an epoch is smaller if need be (padded under a mask).
      placement: `auto`, `map`, `vmap` or `loop`.
    """

    apply: Apply
    optimizer: optax.GradientTransformation | Callable[[Hyper], optax.GradientTransformation]
    batch_size: int
    placement: Placement = "auto"

    def anchored_optimizer(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """The optimizer of a member, masked first and last; its mask is passed at update."""
        fixed = isinstance(self.optimizer, optax.GradientTransformation)
        return transform.anchored(self.optimizer if fixed else self.optimizer(hyper))


class Members(NamedTuple):
    """The state of M models; every leaf has the leading axis M."""

    params: Params
    """(M, ...) parameters."""
    mask: Mask
    """(M, ...) bool or float masks, `True` = trainable."""
    opt_state: Any
    """(M, ...) optimizer state."""
    order: jax.Array
    """(M,) typed keys; a member's data order in epoch e is a permutation drawn with `fold_in(order, e)`."""
    hyper: Hyper
    """(M,) arrays by name."""


def init_ensemble(
    trainer: Trainer, params: Params, order: jax.Array, mask: Mask | None = None, hyper: Hyper | None = None
) -> Members:
    """M members with fresh optimizer states.

    Args:
      trainer: the common part.
      params: (M, ...) initial parameters, e.g. `jax.vmap(init)(keys)`.
      order: (M,) typed PRNG keys of the data order; members with equal keys see the data in the same order.
      mask: (M, ...) masks, `None` for all trainable.
      hyper: (M,) arrays by name, handed to `trainer.optimizer` if that is a function.

    Raises:
      ValueError: leading axes differ (all are listed), or the mask does not fit the parameters.
    """
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params) if mask is None else mask
    hyper = {} if hyper is None else {k: jnp.asarray(v) for k, v in hyper.items()}
    members = order.shape[0]
    wrong = [
        f"{part}{jax.tree_util.keystr(path)} {np.shape(leaf)}"
        for part, tree in (("params", params), ("mask", mask), ("hyper", hyper))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if np.shape(leaf)[:1] != (members,)
    ]
    if wrong:
        raise ValueError(f"there are {members} data orders, but these leading axes differ: {', '.join(wrong)}")
    transform.tna_mask(mask).init(params)  # names every leaf that does not fit

    def init(p, h):
        return trainer.anchored_optimizer(h).init(p)

    params, mask = jax.tree.map(jnp.asarray, (params, mask))
    return Members(params, mask, jax.jit(jax.vmap(init))(params, hyper), order, hyper)


def batch_indices(order: jax.Array, epoch: jax.Array, examples: int, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """The examples of each step of an epoch, in a member's own order.

    Args:
      order: one typed key.
      epoch: int scalar, may be traced.
      examples: N, the number of examples.

    Returns:
      Indices (S, B) int32 in [0, N) and weights (S, B) float32, 0 for the padding of the last batch; S = ceil(N / B).
    """
    steps = -(-examples // batch_size)
    permuted = jax.random.permutation(jax.random.fold_in(order, epoch), examples).astype(jnp.int32)
    padding = steps * batch_size - examples
    indices = jnp.concatenate([permuted, jnp.zeros(padding, jnp.int32)])
    weights = jnp.concatenate([jnp.ones(examples, jnp.float32), jnp.zeros(padding, jnp.float32)])
    return indices.reshape(steps, batch_size), weights.reshape(steps, batch_size)


def train_step(trainer: Trainer, member: Members, inputs: jax.Array, labels: jax.Array, weight: jax.Array):
    """One optimizer step of one member (no leading axis) on one batch: gradient of the weighted mean cross-entropy.

    Args:
      inputs: (B, ...), labels: (B,) int, weight: (B,) float, 0 for padding.

    Returns:
      The member after the step, and the batch's `Metrics` before it.
    """

    def loss(params):
        found = metrics.classification(trainer.apply(params, inputs), labels, weight)
        return found.loss_sum / jnp.maximum(found.count, np.float32(1)), found

    gradients, found = jax.grad(loss, has_aux=True)(member.params)
    optimizer = trainer.anchored_optimizer(member.hyper)
    updates, opt_state = optimizer.update(gradients, member.opt_state, member.params, mask=member.mask)
    params = transform.apply_updates(member.params, updates, member.mask)
    return member._replace(params=params, opt_state=opt_state), found


def train_epoch(
    trainer: Trainer, members: Members, inputs: jax.Array, labels: jax.Array, epoch: int, *, donate: bool = False
) -> tuple[Members, Metrics]:
    """Trains every member for one epoch, over all devices the members are placed on.

    Args:
      members: M members. To use several devices, place them first: `placement.split(placement.pad(members, n), mesh)`.
      inputs: (N, ...) examples of any dtype, shared by all members.
      labels: (N,) integers.
      epoch: the epoch's number; it selects the data order.
      donate: reuse the memory of `members`, which must not be read afterwards.

    Returns:
      The members after the epoch, and `Metrics` with leaves (M,): sums over the epoch of each batch before its step. A
      member with a non-finite `loss_sum` has diverged.

    Raises:
      ValueError: a batch larger than the data, or numbers of inputs and labels that differ.
    """
    check_data(inputs, labels, trainer.batch_size)
    one = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), members.params)
    batch = jax.ShapeDtypeStruct((trainer.batch_size, *inputs.shape[1:]), inputs.dtype)
    how = placement.resolve(trainer.placement, trainer.apply, one, batch)
    if how == "loop":
        return _loop_epoch(trainer, members, inputs, labels, epoch)
    sharding = members.order.sharding
    over = getattr(sharding, "mesh", None) or placement.mesh([next(iter(members.order.devices()))])
    program = _epoch_program(trainer, how, over, donate)
    return program(members, inputs, labels, jnp.int32(epoch))


def check_data(inputs, labels, batch_size: int) -> None:
    """Raises ValueError where inputs (N, ...), labels (N,) and the batch size do not go together."""
    if labels.shape != inputs.shape[:1]:
        raise ValueError(f"{inputs.shape[0]} inputs but labels of shape {labels.shape}")
    if not 1 <= batch_size <= inputs.shape[0]:
        raise ValueError(f"a batch of {batch_size} examples needs as many, but the data has {inputs.shape[0]}")


@functools.lru_cache(maxsize=32)
def _epoch_program(trainer: Trainer, how: Placement, over, donate: bool):
    def member_epoch(member: Members, inputs, labels, epoch):
        indices, weights = batch_indices(member.order, epoch, inputs.shape[0], trainer.batch_size)  # (S, B)

        def step(carry, batch):
            params, opt_state, total = carry
            index, weight = batch
            state = member._replace(params=params, opt_state=opt_state)
            state, found = train_step(trainer, state, inputs[index], labels[index], weight)
            return (state.params, state.opt_state, metrics.merge(total, found)), None

        start = (member.params, member.opt_state, metrics.zero())
        (params, opt_state, total), _ = jax.lax.scan(step, start, (indices, weights))
        return member._replace(params=params, opt_state=opt_state), total

    def epoch_of_share(members: Members, inputs, labels, epoch):
        if how == "vmap":
            return jax.vmap(member_epoch, in_axes=(0, None, None, None))(members, inputs, labels, epoch)
        return jax.lax.map(lambda member: member_epoch(member, inputs, labels, epoch), members)

    return jax.jit(placement.sharded(epoch_of_share, over, replicated=3), donate_argnums=(0,) if donate else ())


@functools.lru_cache(maxsize=32)
def _step_program(trainer: Trainer):
    def step(member: Members, total: Metrics, inputs, labels, index, weight):
        member, found = train_step(trainer, member, inputs[index], labels[index], weight)
        return member, metrics.merge(total, found)

    return jax.jit(step), jax.jit(batch_indices, static_argnums=(2, 3))


def _loop_epoch(trainer: Trainer, members: Members, inputs, labels, epoch):
    """The same epoch as a plain Python loop: the reference of the other placements.

    The members' devices take turns, so that steps of different members run side by side.
    """
    step, order_of = _step_program(trainer)
    devices = sorted(members.order.devices(), key=lambda device: device.id)
    homes = [devices[i % len(devices)] for i in range(members.order.shape[0])]
    data = {device: jax.device_put((inputs, labels), device) for device in devices}
    states, batches = [], []
    for i, home in enumerate(homes):
        state = jax.device_put(member(members, i), home)
        states.append((state, jax.device_put(metrics.zero(), home)))
        drawn = order_of(state.order, jnp.int32(epoch), inputs.shape[0], trainer.batch_size)
        batches.append(jax.tree.map(np.asarray, drawn))  # indices (S, B), weights (S, B)
    for s in range(-(-inputs.shape[0] // trainer.batch_size)):
        for i, home in enumerate(homes):
            indices, weights = batches[i]
            states[i] = step(*states[i], *data[home], indices[s], weights[s])

    def stack(*leaves):
        return jnp.stack([jax.device_put(leaf, devices[0]) for leaf in leaves])

    done, totals = jax.tree.map(stack, *states)
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), done, members), totals


def train_ensemble(
    trainer: Trainer,
    members: Members,
    inputs: jax.Array,
    labels: jax.Array,
    epochs: int,
    *,
    start: int = 0,
    on_epoch: Callable[[int, Members, Metrics], None] | None = None,
) -> tuple[Members, list[Metrics]]:
    """Trains M members for epochs `start` ... `epochs - 1` on all devices.

    M need not be a multiple of the number of devices: the last member is repeated and cut off again.

    Args:
      on_epoch: called after each epoch with its number, the members and their metrics: progress, checkpoints. What it is
        given is valid until it returns; copy what must live longer.

    Returns:
      The members, and the `Metrics` of each epoch with leaves (M,). Raises as `train_epoch`.
    """
    check_data(inputs, labels, trainer.batch_size)
    count, over = members.order.shape[0], placement.mesh()

    def cut(tree):
        return jax.tree.map(lambda leaf: leaf[:count], tree) if count % over.size else tree

    current = placement.split(jax.tree.map(lambda x: x.copy(), placement.pad(members, over.size)), over)
    inputs, labels = placement.replicate((inputs, labels), over)
    history = []
    for epoch in range(start, epochs):
        current, found = train_epoch(trainer, current, inputs, labels, epoch, donate=True)
        history.append(cut(found))
        if on_epoch is not None:
            on_epoch(epoch, cut(current), history[-1])
    return cut(current), history


def member(members: Params, index: int | jax.Array) -> Params:
    """One member of a stacked tree, without the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], members)

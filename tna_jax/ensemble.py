"""Many models, one program: M networks with their own initial values, masks, data order and hyper-parameters.

The leading axis M of every leaf is the model. A member's numbers depend on its own slice alone, so a member that diverges
disturbs no other, and `map`, `vmap` and `loop` (see `tna_jax.placement`) only change the speed. Anchored entries are
copied from step to step, never computed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core.primitives import convert_element_type_p
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer, Key, PyTree, Shaped

from tna_jax import averaging, metrics, networks, objectives, optimizers, prng, program_cache, sharding, transform
from tna_jax import labels as labels_lib
from tna_jax import placement as placement_lib
from tna_jax.masks import Mask, Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement

Hyper = dict[str, jax.Array]
"""A member's hyper-parameters, scalars by name."""

Stacked = TypeVar("Stacked")
"""The type of a stacked tree, which one member has too."""

Batch = tuple[Any, Any, jax.Array]
"""Inputs (B, ...), labels or other targets, and the weight of each, 0 for padding."""


_TAKER = "Trainer(network, optimizer, batch_size)"


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What all members of an ensemble have in common.

    Attributes:
      network: a function (params, inputs) -> outputs, or a `Stateful` one. Inputs are scaled there: it is given the stored
        ones (say uint8 images) as they are. They are any pytree, as targets are.
      optimizer: an optax transformation (or `optax.MultiSteps`), or a function from a member's `Hyper` to one, for hyper-parameters that differ
        between members: `lambda hyper: optax.sgd(hyper["learning_rate"])`. It is run under `anchored`, and
        given the batch's loss as `value`, `grad` and `value_fn` where it wants them (L-BFGS, line searches, Polyak steps).
      batch_size: examples per step. The last batch of an epoch is smaller if need be (padded under a mask).
      placement: `auto`, `map`, `vmap` or `loop`.
      augment: (key, inputs (B, ...)) -> inputs of the same shape, run on each batch before the network (see
        `tna_jax.augment`); a member's keys follow from its data order.
      prepare: (key, hyper, batch) -> batch, run after `augment`: for what depends on a member's hyper-parameters, or makes
        labels of its own (see `tna_jax.finetuning`, `tna_jax.masked_lm`). Inputs may become any pytree that the network takes,
        labels and weight (B, ...) of one shape.
      loss: (outputs, targets, hyper) -> losses of the shape of the objective's, what is minimized where that depends on a
        member's hyper-parameters; default: the objective's loss. Metrics stay the objective's.
      objective: the loss and the metrics, see `tna_jax.objectives`; default: classification.
      accumulate: parts that a batch is cut into, whose gradients are summed, in float32, before the step: the same step in less
        memory, up to rounding. Must divide the batch size; not for networks with a state.
    """

    network: Network
    optimizer: optax.GradientTransformation | optax.MultiSteps | Callable[[Hyper], optax.GradientTransformation]
    batch_size: int
    placement: Placement = "auto"
    augment: Callable[[jax.Array, Any], Any] | None = None
    prepare: Callable[[jax.Array, Hyper, Batch], Batch] | None = None
    loss: Callable[[Any, Any, Hyper], jax.Array] | None = None
    accumulate: int = 1
    objective: Objective = CLASSIFICATION

    def __post_init__(self) -> None:
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {self.accumulate} equal parts")
        if self.accumulate > 1 and isinstance(self.network, networks.Stateful):
            raise ValueError(
                "gradients cannot be accumulated for a network with a state: its statistics need the batch"
            )

        if name := optimizers.uncalled(self.optimizer):
            raise TypeError(
                f"Trainer takes an optimizer, and {name} makes one: call it, {name}(...); or lambda hyper: "
                f'{name}(hyper["learning_rate"]), for one that differs between members'
            )
        if not callable(self.optimizer):
            optimizers.as_transformation(self.optimizer, _TAKER)

    def anchored_optimizer(self, hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        """The optimizer of a member, masked first and last; its mask is passed at update.

        Hyper-parameters act as numbers of Python do: they leave the types of half-precision parameters as they are.
        """
        optimizer: Any = self.optimizer
        if not optimizers.is_transformation(optimizer):
            optimizer = optimizers.as_transformation(optimizer(jax.tree.map(_as_number, hyper)), _TAKER)
        return transform.anchored(optimizer)

    def init_optimizer(self, params: Params, mask: Mask, hyper: Hyper) -> Any:
        """Returns the optimizer state of a member (no leading axis) before its first step; traced.

        Of half-precision parameters its types are those it has after a step: what the optimizer makes float32 is so from the start.
        """
        optimizer = self.anchored_optimizer(hyper)
        state = optimizer.init(params)
        if not any(_at_least_float32(p.dtype) != p.dtype for p in jax.tree.leaves(params)):
            return state
        for _ in range(2):  # one part's type may follow from another's
            after = jax.eval_shape(
                lambda s: optimizer.update(
                    params, s, params, mask=mask, **_extra_arguments(_zero_loss, params, jnp.float32(0))
                )[1],
                state,
            )
            state = _as_types(state, after)
        return state


def _as_number(value: Any) -> Any:
    """A floating-point array of a weak type, that of Python's numbers: it does not promote what it is multiplied by."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return convert_element_type_p.bind(value, new_dtype=value.dtype, weak_type=True, sharding=None)


class Members(NamedTuple):
    """The state of M models; every leaf has the leading axis M."""

    params: Params
    """(M, ...) parameters."""
    mask: Mask
    """(M, ...) bool or float masks, `True` = trainable."""
    opt_state: Any
    """(M, ...) optimizer state."""
    data_keys: Key[Array, "..."]
    """(M,) typed keys; a member's data order in epoch e is a permutation drawn with `fold_in(data_key, e)`."""
    hyper: Hyper
    """(M,) arrays by name."""
    state: State = ()
    """(M, ...) state of the networks (BatchNorm's running statistics), `()` if they have none."""
    member_data: Any = ()
    """Inputs (M, N, ...) and labels (M, N) where each member has its own data, `()` where all have the same."""


@sharding.outside_meshes
def init_ensemble(
    trainer: Trainer,
    params: PyTree[Shaped[Array | np.ndarray, "..."]],
    data_keys: Key[Array, " M"],
    mask: PyTree[Bool[Array | np.ndarray, "..."] | Float[Array | np.ndarray, "..."]] | None = None,
    hyper: Mapping[str, Shaped[Array | np.ndarray, "..."] | Sequence[float]] | None = None,
    state: State = (),
    member_data: Any = (),
) -> Members:
    """Returns M members with fresh optimizer states.

    Args:
      trainer: the common part.
      params: (M, ...) initial parameters, e.g. `jax.vmap(init)(keys)`; or a list or tuple of M models, as masks and states may be.
      data_keys: (M,) typed PRNG keys of the data order; members with equal keys see the data in the same order.
      mask: (M, ...) masks, `None` for all trainable.
      hyper: (M,) arrays by name, handed to `trainer.optimizer` if that is a function.
      state: (M, ...) initial state, for a `Stateful` network; half-precision leaves become float32.
      member_data: inputs (M, N, ...) and labels (M, N), if each member is to train on its own data; what trains them is then given
        `None` for inputs and labels.

    Raises:
      ValueError: leading axes differ (all are listed), or the mask does not fit the parameters.
    """
    params, mask, state = (_with_leading_axis(tree, data_keys.size) for tree in (params, mask, state))
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params) if mask is None else mask
    hypers: Hyper = {} if hyper is None else {k: jnp.asarray(v) for k, v in hyper.items()}
    if data_keys.ndim != 1 or not jnp.issubdtype(data_keys.dtype, jax.dtypes.prng_key):
        raise ValueError(
            f"data_keys are typed keys (M,), one for each member: jax.random.split(jax.random.key(0), M); got {data_keys.dtype} "
            f"{data_keys.shape}"
        )
    members = data_keys.shape[0]
    wrong = [
        f"{part}{jax.tree_util.keystr(path)} {np.shape(leaf)}"
        for part, tree in (
            ("params", params),
            ("mask", mask),
            ("hyper", hypers),
            ("state", state),
            ("member_data", member_data),
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if np.shape(leaf)[:1] != (members,)
    ]
    if wrong:
        raise ValueError(f"there are {members} data keys, but these leading axes differ: {', '.join(wrong)}")
    transform.tna_mask(mask).init(params)  # names every leaf that does not fit

    parts = jax.tree.map(_strong, (params, mask, hypers, state, member_data))
    params, mask, hypers, state, member_data = parts
    # Running averages in half precision stop moving: what a batch adds is below their last digit.
    state = jax.tree.map(lambda x: x.astype(_at_least_float32(x.dtype)), state)
    opt_state = jax.tree.map(_strong, jax.jit(jax.vmap(trainer.init_optimizer))(params, mask, hypers))
    return Members(params, mask, opt_state, data_keys, hypers, state, member_data)


def _with_leading_axis(tree: Any, members: int) -> Any:
    """A tree (M, ...); of a list or tuple of M models they are stacked, unless all leaves have the leading axis M already."""
    if (
        type(tree) not in (list, tuple)
        or len(tree) != members
        or all(np.shape(leaf)[:1] == (members,) for leaf in jax.tree.leaves(tree))
    ):
        return tree
    return averaging.stacked(tree)


def _strong(value: Any) -> Any:
    """An array of a type of its own: of a weak one (`jnp.full(shape, 0.1)`) a step would make another, and be compiled twice."""
    array = jnp.asarray(value)
    return jnp.asarray(array, array.dtype) if getattr(array, "weak_type", False) else array


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
        outputs, state = networks.train(trainer.network, params, member.state, inputs, real, key)
        sums = trainer.objective.sums(outputs, labels, weight)
        summed = sums.loss_sum
        if trainer.loss is not None:
            losses = jnp.asarray(trainer.loss(outputs, labels, member.hyper))
            weights = trainer.objective.weights(labels, weight)
            objectives.check_shape("the losses of the trainer's `loss`", losses.shape, weights.shape)
            summed = jnp.sum(jnp.where(weights > 0, losses, np.float32(0)) * weights)
        return summed / jnp.maximum(sums.count if total is None else total, np.float32(1)), (sums, state)

    gradient, batch = jax.value_and_grad(loss, has_aux=True), (inputs, labels, weight)
    if trainer.accumulate == 1:
        (value, (sums, state)), gradients = gradient(member.params, *batch, None, key)
    else:
        value, gradients, sums = _accumulated(trainer, gradient, member.params, batch, key)
        state = member.state

    def batch_loss(params: Params) -> Array:
        if trainer.accumulate == 1:
            return loss(params, *batch, None, key)[0]
        summed: Array = _sum_of_parts(lambda *part: loss(params, *part)[0], trainer, batch, key)
        return summed

    optimizer = trainer.anchored_optimizer(member.hyper)
    extra = _extra_arguments(batch_loss, gradients, value)
    updates, opt_state = optimizer.update(gradients, member.opt_state, member.params, mask=member.mask, **extra)
    params = transform.apply_updates(member.params, updates, member.mask)
    # What is trained keeps its types from step to step: one program, and a loop can carry it.
    opt_state, state = _as_types(opt_state, member.opt_state), _as_types(state, member.state)
    return member._replace(params=params, opt_state=opt_state, state=state), sums


def _extra_arguments(loss: Callable[[Params], Array], gradients: Params, value: Any) -> dict[str, Any]:
    """What optimizers may ask for at an update beside the gradients: the loss here, and as a function of the parameters."""
    return {"value": value, "grad": gradients, "value_fn": loss}


def _zero_loss(params: Params) -> Array:
    return sum((jnp.sum(p).astype(jnp.float32) * np.float32(0) for p in jax.tree.leaves(params)), jnp.float32(0))


def _accumulated(
    trainer: Trainer, gradient: Callable[..., Any], params: Params, batch: Batch, key: Array | None
) -> tuple[Array, Params, AnyMetrics]:
    """The batch's loss, gradient and metrics as sums over equal parts of it, one after the other."""

    def of_part(*part: Any) -> tuple[Array, Params, AnyMetrics]:
        (value, (sums, _)), gradients = gradient(params, *part)
        wide = jax.tree.map(lambda g: g.astype(_at_least_float32(g.dtype)), gradients)
        return value, wide, sums

    value, gradients, sums = _sum_of_parts(of_part, trainer, batch, key)
    return value, _as_types(gradients, params), sums


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


def _at_least_float32(dtype: Any) -> Any:
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def _as_types(tree: Any, like: Any) -> Any:
    """`tree` with the dtypes of `like`, a tree of the same structure, where both are arrays of numbers."""

    def cast(x: Any, other: Any) -> Any:
        numbers = all(jnp.issubdtype(jnp.result_type(y), jnp.number) for y in (x, other))
        return jax.lax.convert_element_type(x, jnp.result_type(other)) if numbers else x

    structures: list[Any] = [jax.tree.structure(x) for x in (tree, like)]
    return jax.tree.map(cast, tree, like) if structures[0] == structures[1] else tree


AUGMENT = 1
"""Stream of an epoch's key for augmentation; the key itself draws the order."""


PREPARE = 2
"""Stream of an epoch's key for what `Trainer.prepare` draws."""


NETWORK = 3
"""Stream of an epoch's key for what the network draws in training (dropout)."""


def _batch_step(
    trainer: Trainer, member: Members, data: Any, epoch: Array, number: Array, index: Array, weight: Array
) -> tuple[Members, AnyMetrics]:
    """Step `number` of an epoch: gathers the batch, augments and prepares it, trains on it."""
    inputs, labels = member.member_data or data
    batch, targets = jax.tree.map(lambda x: x[index], (inputs, labels))
    padded = _examples(inputs) % trainer.batch_size != 0
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


def _examples(arrays: Any) -> int:
    """N of (N, ...)."""
    return int(jax.tree.leaves(arrays)[0].shape[0])


def examples_of(member: Members, inputs: Any) -> int:
    """Returns N, the examples that one member (no leading axis) trains on in an epoch, of shared inputs (N, ...) or its data."""
    return _examples(member.member_data[0] if member.member_data else inputs)


@sharding.outside_meshes
def train_epoch(
    trainer: Trainer,
    members: Members,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    labels: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    epoch: int,
    *,
    donate: bool = False,
) -> tuple[Members, AnyMetrics]:
    """Trains every member for one epoch, over all devices the members are placed on.

    Args:
      trainer: the common part.
      members: M members. To use several devices, place them first: `placement.shard(placement.pad(members, n), mesh)`.
      inputs: (N, ...) examples of any dtype, shared by all members, any pytree; `None` where members have data of their own.
      labels: (N,) integers, or the targets of another objective, (N, ...) in every leaf; `None` where members have data of
        their own.
      epoch: the epoch's number; it selects the data order.
      donate: reuse the memory of `members`, which must not be read afterwards.

    Returns:
      The members after the epoch, and the objective's metrics with leaves (M,): sums over the epoch of each batch before its step. A
      member with a non-finite `loss_sum` has diverged.

    Raises:
      ValueError: a batch larger than the data, or numbers of inputs and labels that differ.
    """
    _check(trainer, members, inputs, labels)
    placement = resolve(trainer, members, inputs, labels)
    sharding = members.data_keys.sharding
    mesh: Mesh = getattr(sharding, "mesh", None) or placement_lib.mesh([next(iter(members.data_keys.devices()))])
    if (
        jax.process_count() == 1
    ):  # as they come out: else the next epoch is another program; what lies there already stays
        members = placement_lib.shard(members, mesh)
    if donate:
        members = placement_lib.distinct(members)
    if placement == "loop":
        return _loop_epoch(trainer, members, inputs, labels, epoch, mesh)
    program = epoch_program(trainer, placement, mesh, donate)
    trained: tuple[Members, AnyMetrics] = program(members, inputs, labels, jnp.int32(epoch))
    return trained


def _check(trainer: Trainer, members: Members, inputs: Any, labels: Any) -> None:
    if not members.member_data:
        return check_data(inputs, labels, trainer.batch_size, trainer.objective)
    if inputs is not None or labels is not None:
        raise ValueError("these members have their own data: give None for inputs and labels")
    inputs, labels = _without_leading_axis(members.member_data)
    check_data(inputs, labels, trainer.batch_size, trainer.objective)


def _check_classes(trainer: Trainer, members: Members, inputs: Any, labels: Any) -> None:
    """Raises ValueError for labels that the network has no output for; those that `prepare` makes are not known here."""
    if not trainer.objective.classes or trainer.prepare is not None:
        return
    outputs = program_cache.output_shapes(
        functools.partial(network_inputs, trainer), _without_leading_axis(members), inputs, labels
    )
    values = labels_lib.on_host(members.member_data[1] if members.member_data else labels)
    if values is not None and hasattr(outputs, "shape"):
        labels_lib.check_labels(values.reshape(-1), values.size, classes=outputs.shape[-1])


def _without_leading_axis(members: Any) -> Any:
    """The shapes and dtypes of one member."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), members)


def resolve(trainer: Trainer, members: Members, inputs: Any, labels: Any = None) -> Placement:
    """Returns the placement that the trainer's stands for with these members, inputs and targets (arrays or shapes; by default labels)."""
    if trainer.placement != "auto":
        return placement_lib.resolve(trainer.placement, None)
    output = functools.partial(network_inputs, trainer)
    return placement_lib.resolve("auto", output, _without_leading_axis(members), inputs, labels)


def network_inputs(trainer: Trainer, member: Members, inputs: Any, labels: Any = None) -> PyTree[Float[Array, "..."]]:
    """Computes the network's output on one prepared batch: what is traced to see what a step is made of."""
    if member.member_data:
        inputs, labels = member.member_data
    elif labels is None:
        labels = jnp.zeros(_examples(inputs), jnp.int32)
    batch = jax.tree.map(lambda x: x[: trainer.batch_size], (inputs, labels))
    if trainer.prepare is not None:
        weight = jnp.ones(trainer.batch_size, jnp.float32)
        batch = trainer.prepare(member.data_keys, member.hyper, (*batch, weight))[:2]
    return networks.evaluate(trainer.network, member.params, member.state, batch[0])


def check_data(inputs: Any, labels: Any, batch_size: int, objective: Objective = CLASSIFICATION) -> None:
    """Raises ValueError where inputs (N, ...), labels (N,) or other targets (N, ...), and the batch size do not go together."""
    examples = objectives.check_examples(objective, inputs, labels)
    if not 1 <= batch_size <= examples:
        raise ValueError(f"a batch of {batch_size} examples needs as many, but the data has {examples}")


@program_cache.by_contents()
def epoch_program(trainer: Trainer, placement: Placement, mesh: Mesh, donate: bool) -> Any:
    """Returns the compiled epoch of `map` and `vmap`: (members, inputs, labels, epoch) -> (members, metrics), over the mesh `mesh`."""

    def member_epoch(member: Members, inputs: Any, labels: Any, epoch: Array) -> tuple[Members, AnyMetrics]:
        indices, weights = batch_indices(
            member.data_keys, epoch, examples_of(member, inputs), trainer.batch_size
        )  # (S, B)

        def step(carry: tuple[Any, ...], batch: tuple[Array, Array, Array]) -> tuple[tuple[Any, ...], None]:
            *trained, total = carry
            state = with_trained(member, trained)
            state, sums = _batch_step(trainer, state, (inputs, labels), epoch, *batch)
            return (*trained_part(state), metrics.merge(total, sums)), None

        numbers = jnp.arange(indices.shape[0], dtype=jnp.int32)
        (*trained, total), _ = jax.lax.scan(
            step, (*trained_part(member), trainer.objective.zero()), (numbers, indices, weights)
        )
        return with_trained(member, trained), total

    def epoch_of_share(members: Members, inputs: Any, labels: Any, epoch: Array) -> Any:
        if placement == "vmap":
            return jax.vmap(member_epoch, in_axes=(0, None, None, None))(members, inputs, labels, epoch)
        return jax.lax.map(lambda member: member_epoch(member, inputs, labels, epoch), members)

    return jax.jit(
        placement_lib.shard_map_stacked(epoch_of_share, mesh, replicated=3), donate_argnums=(0,) if donate else ()
    )


def trained_part(members: Members) -> tuple[Any, Any, Any]:
    """Returns what a step changes: parameters, optimizer state, state."""
    return members.params, members.opt_state, members.state


def with_trained(members: Members, trained: Sequence[Any]) -> Members:
    """Returns the members with other parameters, optimizer states and states."""
    params, opt_state, state = trained
    return members._replace(params=params, opt_state=opt_state, state=state)


@program_cache.by_contents()
def _step_programs(trainer: Trainer, mesh: Mesh) -> tuple[Any, Any, Any, Any]:
    """A step of one member on each device, and what cuts members out of their devices' shares and puts them back.

    One program for all devices, compiled once; they run side by side.
    """

    def step(state: Any, rest: Any, inputs: Any, labels: Any, epoch: Array, number: Array) -> tuple[Any, AnyMetrics]:
        trained, total = state
        fixed, (indices, weights) = rest  # (S, B) each
        batch = (epoch, number, indices[number], weights[number])
        member, sums = _batch_step(trainer, with_trained(fixed, trained), (inputs, labels), *batch)
        return trained_part(member), metrics.merge(total, sums)

    def epoch_batches(member: Members, epoch: Array, inputs: Any) -> tuple[Array, Array]:
        return batch_indices(member.data_keys, epoch, examples_of(member, inputs), trainer.batch_size)

    def step_on_each(state: Any, rest: Any, *copies: Any) -> Any:
        run = placement_lib.shard_map_single(lambda both, *copies: step(*both, *copies), mesh, 4)
        return run((state, rest), *copies)

    return (
        jax.jit(step_on_each, donate_argnums=0),
        jax.jit(placement_lib.shard_map_single(epoch_batches, mesh, 2)),
        *turn_programs(mesh),
    )


@functools.lru_cache(maxsize=32)
def turn_programs(mesh: Mesh) -> tuple[Any, Any]:
    """Returns what cuts one member out of each device's share, (members, number) -> members, and what puts a list of such back."""

    def cut(share: Any, number: Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number, 1), share)

    def join(parts: Any) -> Any:
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    return (
        jax.jit(placement_lib.shard_map_stacked(cut, mesh, 1)),
        jax.jit(placement_lib.shard_map_stacked(join, mesh, 0)),
    )


def _loop_epoch(
    trainer: Trainer, members: Members, inputs: Any, labels: Any, epoch: int, mesh: Mesh
) -> tuple[Members, AnyMetrics]:
    """The same epoch as a plain Python loop: the reference of the other placements, and the fastest for convolutions on CPUs.

    Each member stays on its device; all devices take a step of one of theirs, then of the next.
    """
    step, epoch_batches, cut, join = _step_programs(trainer, mesh)
    numbers = range(members.data_keys.shape[0] // mesh.size)
    members_in_turn = [cut(members, jnp.int32(i)) for i in numbers]
    zero = jax.tree.map(lambda x: np.zeros(mesh.size, x.dtype), trainer.objective.zero())
    states = [(trained_part(member), placement_lib.shard(zero, mesh)) for member in members_in_turn]
    orders = [epoch_batches(member, jnp.int32(epoch), inputs) for member in members_in_turn]
    rests = [
        (member._replace(params=None, opt_state=None, state=None), drawn)
        for member, drawn in zip(members_in_turn, orders, strict=True)
    ]
    for s in range(orders[0][0].shape[1]):
        for i in numbers:
            states[i] = step(states[i], rests[i], inputs, labels, np.int32(epoch), np.int32(s))
    trained, totals = join(states)
    return with_trained(members, trained), totals


@sharding.outside_meshes
def train_ensemble(
    trainer: Trainer,
    members: Members,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    labels: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    epochs: int,
    *,
    start: int = 0,
    on_epoch: Callable[[int, Callable[..., Members], Any], None] | None = None,
) -> tuple[Members, list[AnyMetrics]]:
    """Trains M members for epochs `start` ... `epochs - 1` on all devices, or on M of them where there are more.

    M need not be a multiple of the number of devices: the last member is repeated and cut off again.

    Args:
      trainer, members, inputs, labels: as in `train_epoch`; the members need not be placed.
      epochs: where to stop, counted from epoch 0.
      start: the first epoch to train.
      on_epoch: called after each epoch with its number, a function that returns the members as they are now (a copy on the
        host, so call it when a checkpoint is due only), and the epoch's metrics. The function takes the NumPy arrays to copy
        into, if there are any: (parameters, optimizer state, state), (M, ...) each.

    Returns:
      The members, and the metrics of each epoch with leaves (M,), NumPy. What was trained is NumPy too where M is not a
      multiple of the devices.

    Raises:
      ValueError: as `train_epoch`; labels that the network has no output for.
    """
    _check(trainer, members, inputs, labels)
    _check_classes(trainer, members, inputs, labels)
    count = members.data_keys.shape[0]
    mesh = placement_lib.mesh_for(count)
    padded = placement_lib.pad(members, mesh.size)
    current = placement_lib.shard(jax.tree.map(lambda x: x.copy(), padded), mesh)
    inputs, labels = placement_lib.replicate((inputs, labels), mesh)

    def on_host(into: tuple[Any, Any, Any] | None = None) -> Members:
        return to_host(members, current, into)

    history = []
    for epoch in range(start, epochs):
        current, sums = train_epoch(trainer, current, inputs, labels, epoch, donate=True)
        history.append(jax.tree.map(lambda x: x[:count], placement_lib.to_host(sums)))
        if on_epoch is not None:
            on_epoch(epoch, on_host, history[-1])
    return (on_host() if count % mesh.size else current), history


def to_host(members: Members, current: Members, into: tuple[Any, Any, Any] | None = None) -> Members:
    """Returns `members` as they are in training now: parameters, optimizer states and states on the host, without the padding.

    Args:
      members: M members, as they were before the training.
      current: the same, padded and placed.
      into: NumPy arrays to copy into: (parameters, optimizer state, state), (M, ...) each.
    """
    if into is not None:
        placement_lib.fetch_into(trained_part(current), into)
        return with_trained(members, into)
    # Not by slicing on the devices: that needs communication, which CPU devices that share a core may never finish.
    count = members.data_keys.shape[0]
    return with_trained(members, jax.tree.map(lambda x: x[:count], placement_lib.to_host(trained_part(current))))


def member(members: Stacked, index: int | Integer[Array | np.ndarray | np.number, ""]) -> Stacked:
    """Returns one member of a stacked tree (M, ...), without the leading axis.

    >>> member({"w": jnp.arange(6).reshape(3, 2)}, 1)["w"].tolist()
    [2, 3]
    """
    chosen: Stacked = _slice_of(members, index)
    return chosen


def _slice_of(
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]], index: int | Integer[Array | np.ndarray | np.number, ""]
) -> PyTree[Shaped[Array | np.ndarray | np.generic, "..."]]:
    return jax.tree.map(lambda leaf: sharding.entry(leaf, index), members)

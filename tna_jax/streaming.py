"""Training and measuring on data that is not in memory: a stream gives examples by number, batch after batch.

A `Stream` is whatever has a length and reads the examples of many batches in turn; `tna_jax.io.Records` is one, of files. Members see the
batches that `tna_jax.ensemble.train_ensemble` would give them of the same examples in memory, in the same order, and take the same
steps. What is kept in memory is a few batches, and the order: 4 bytes for each example and different data order.

>>> class Numbers:  # x = 0 ... 9, made when they are asked for
...     def __len__(self):
...         return 10
...     def batches(self, rows):
...         return ((row[:, None].astype(np.float32), row % 2) for row in map(np.asarray, rows))
>>> inputs, labels = next(Numbers().batches([[3, 4]]))
>>> inputs.tolist(), labels.tolist()
([[3.0], [4.0]], [1, 0])
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tna_jax import ensemble, metrics, objectives, program_cache, sharding, trees
from tna_jax import labels as labels_lib
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Members, Trainer
from tna_jax.ensemble.validation import check_epochs
from tna_jax.metrics import AnyMetrics
from tna_jax.objectives import Objective
from tna_jax.placement import Placement

PART = 256
"""Steps after which the metrics go to the host, and a training can be saved."""


@runtime_checkable
class Stream(Protocol):
    """Examples by number, of any source."""

    def __len__(self) -> int:
        """N, the number of examples."""
        ...

    def batches(self, rows: Sequence[np.ndarray], /) -> Iterator[tuple[Any, Any]]:
        """Gives, for the numbers (B,) of every row in turn, inputs (B, ...) and targets (B, ...), any pytrees of NumPy arrays."""
        ...


class Position(NamedTuple):
    """Where in an epoch a training is."""

    epoch: int
    step: int
    """Steps of the epoch that are done."""
    sums: AnyMetrics | None
    """Metrics of these steps, leaves (M,) float64; None before the first."""


def example(stream: Stream) -> tuple[Any, Any]:
    """Returns inputs (1, ...) and targets (1, ...) of the first example of a stream."""
    return next(iter(stream.batches([np.zeros(1, np.int64)])))


def parts(stream: Stream, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Gives all examples in their order: inputs (B, ...) and targets (B, ...), the last ones fewer."""
    starts = range(0, len(stream), batch_size)
    return stream.batches([np.arange(start, min(start + batch_size, len(stream))) for start in starts])


def sum_parts(totals: Any, part: Any) -> Any:
    """Adds metrics of a part, on the host in float64: counts stay exact, however many examples there are."""
    part = jax.tree.map(lambda x: np.asarray(x, np.float64), part)
    return part if totals is None else metrics.merge(totals, part)


@sharding.outside_meshes
def train_stream(
    trainer: Trainer,
    members: Members,
    stream: Stream,
    epochs: int,
    *,
    start: int = 0,
    within: Position | None = None,
    part: int = PART,
    on_part: Callable[[Position, Callable[..., Members]], None] | None = None,
    on_epoch: Callable[[int, Callable[..., Members], Any], None] | None = None,
) -> tuple[Members, list[AnyMetrics]]:
    """Trains M members on a stream for epochs `start` ... `epochs - 1`, as `train_ensemble` does on arrays.

    The steps are those of `train_ensemble` on the same examples: each member sees them in the order of its own data key; members
    with equal keys share what is read. A training that was stopped after a part continues at `within` as if it had not been.

    Args:
      trainer, members, epochs, start, on_epoch: as in `train_ensemble`; members must have no data of their own.
      stream: the examples.
      within: where to continue inside epoch `start`, as `on_part` was given it.
      part: steps between two calls of `on_part`; a continued training must have the same.
      on_part: called after every part but an epoch's last, with the position and a function that returns the members as they are now, as in
        `on_epoch`.

    Returns:
      As `train_ensemble`; metrics are float64.

    Raises:
      ValueError: a batch larger than the data, inputs and targets that do not go together, labels that the network has no output for
        (when they are read), members with data of their own, epochs that do not count up from `start`, or a position in another epoch.
    """
    if members.member_data:
        raise ValueError("these members have their own data: a stream is shared by all members")
    check_epochs(start, epochs)
    first = example(stream)
    _check(trainer, stream, *first)
    steps = -(-len(stream) // trainer.batch_size)
    if part < 1:
        raise ValueError(f"part: 1 or more steps, got {part}")
    if within is not None and not (within.epoch == start and 0 <= within.step < steps):
        raise ValueError(
            f"a training continues inside epoch start={start}, of {steps} steps, after one of them; got epoch {within.epoch}, step {within.step}"
        )
    count = members.data_keys.shape[0]
    mesh = placement_lib.mesh_for(count)
    resolved = ensemble.resolve(trainer, members, *_batch_shapes(trainer, first))
    classes = _classes(trainer, members, first)
    current = placement_lib.shard(jax.tree.map(lambda x: x.copy(), placement_lib.pad(members, mesh.size)), mesh)
    padded = len(stream) % trainer.batch_size != 0
    run = (_LoopSteps if resolved == "loop" else _Steps)(trainer, resolved, mesh, padded, current)
    keys = placement_lib.pad(members.data_keys, mesh.size)

    def on_host(into: tuple[Any, Any, Any] | None = None) -> Members:
        return ensemble.to_host(members, run.members(), into)

    history: list[AnyMetrics] = []
    for epoch in range(start, epochs):
        _, done, sums = within if within is not None and epoch == start else Position(epoch, 0, None)
        for number, batch, weight in member_batches(stream, keys, epoch, trainer.batch_size, done):
            objectives.check_examples(trainer.objective, *_one_member(batch))
            if classes is not None:
                labels_lib.check_labels(batch[1].reshape(-1), batch[1].size, classes=classes)
            run.step(batch, weight, epoch, number)
            if (number + 1) % part == 0 or number + 1 == steps:
                taken = placement_lib.to_host(run.take_sums())
                sums = sum_parts(sums, jax.tree.map(lambda x: x[:count], taken))
                if on_part is not None and number + 1 < steps:
                    on_part(Position(epoch, number + 1, sums), on_host)
        assert sums is not None  # an epoch has a step
        history.append(sums)
        if on_epoch is not None:
            on_epoch(epoch, on_host, sums)
    return (on_host() if count % mesh.size else run.members()), history


def member_batches(
    stream: Stream, data_keys: jax.Array, epoch: int, batch_size: int, done: int = 0
) -> Iterator[tuple[int, tuple[Any, Any], np.ndarray]]:
    """Gives the batches of an epoch for M members, each in the order of its data key, for a training loop of one's own.

    Args:
      stream: the examples.
      data_keys: (M,) typed keys.
      epoch: its number.
      batch_size: B.
      done: steps to leave out.

    Yields:
      The number of the step; inputs (M, B, ...) and targets (M, B, ...); weights (B,) float32, 0 for the padding of the last batch.
    """
    words = np.asarray(jax.random.key_data(data_keys))
    _, first, of_member = np.unique(words.reshape(len(words), -1), axis=0, return_index=True, return_inverse=True)
    orders = np.stack([np.asarray(_order(data_keys[i], epoch, len(stream), batch_size)) for i in first], 1)  # (S, U, B)
    shared = len(first) == 1 and len(words) > 1
    weights = (np.arange(orders.shape[0] * batch_size) < len(stream)).astype(np.float32).reshape(-1, batch_size)

    def stacked(x: np.ndarray) -> np.ndarray:
        x = x.reshape(len(first), batch_size, *x.shape[1:])
        if shared:
            return np.broadcast_to(x, (len(words), *x.shape[1:]))
        return (
            x if len(first) == len(words) and (of_member == np.arange(len(words))).all() else x[of_member.reshape(-1)]
        )

    rows = orders[done:].reshape(len(orders) - done, -1)
    for number, batch in enumerate(stream.batches(list(rows)), done):
        yield number, jax.tree.map(stacked, batch), weights[number]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _order(key: jax.Array, epoch: Any, examples: int, batch_size: int) -> jax.Array:
    return ensemble.batch_indices(key, epoch, examples, batch_size)[0]


def _check(trainer: Trainer, stream: Stream, inputs: Any, targets: Any) -> None:
    if trainer.papa is not None:
        raise ValueError("papa needs the data in memory: its members take their steps together, and a stream's do not")
    objectives.check_examples(trainer.objective, inputs, targets)
    if not 1 <= trainer.batch_size <= len(stream):
        raise ValueError(f"a batch of {trainer.batch_size} examples needs as many, but the data has {len(stream)}")


def _classes(trainer: Trainer, members: Members, first: Any) -> int | None:
    """How many classes the network has outputs for; None where targets are no classes, or labels are made by `prepare`."""
    if not trainer.objective.classes or trainer.prepare is not None:
        return None
    shapes = jax.tree.map(lambda x: trees.shape_of(x, x.shape[1:]), members)
    outputs = jax.eval_shape(
        functools.partial(ensemble.network_inputs, trainer), shapes, *_batch_shapes(trainer, first)
    )
    return int(outputs.shape[-1]) if hasattr(outputs, "shape") else None


def _one_member(batch: Any) -> Any:
    return jax.tree.map(lambda x: x[0], batch)


def _batch_shapes(trainer: Trainer, first: Any) -> Any:
    """The shapes of a batch, of one example."""
    return jax.tree.map(lambda x: trees.shape_of(x, (trainer.batch_size, *x.shape[1:])), first)


class _Steps:
    """Steps of all members, `map` or `vmap` on each device. The sums of a part stay on the devices."""

    def __init__(self, trainer: Trainer, placement: Placement, mesh: Mesh, padded: bool, members: Members) -> None:
        self.mesh = mesh
        self.program = _step_program(trainer, placement, mesh, padded)
        self.trained, self.fixed = ensemble.trained_part(members), ensemble.with_trained(members, (None, None, None))
        self.zero = _zero(trainer.objective, members.data_keys.shape[0])
        self.sums: Any = placement_lib.shard(self.zero, mesh)

    def step(self, batch: Any, weight: np.ndarray, epoch: int, number: int) -> None:
        """Takes a step; returns when the one before is done, so that no more than two batches wait."""
        batch = placement_lib.shard(batch, self.mesh)
        before = self.sums
        numbers = np.int32(epoch), np.int32(number)
        self.trained, self.sums = self.program(self.trained, self.sums, self.fixed, batch, weight, *numbers)
        jax.block_until_ready(before)

    def take_sums(self) -> Any:
        """Returns the metrics since the last call."""
        sums, self.sums = self.sums, placement_lib.shard(self.zero, self.mesh)
        return sums

    def members(self) -> Members:
        """Returns the members as they are now."""
        return ensemble.with_trained(self.fixed, self.trained)


class _LoopSteps:
    """Steps of one member of each device at a time, by one dispatch each: the placement `loop`."""

    def __init__(self, trainer: Trainer, placement: Placement, mesh: Mesh, padded: bool, members: Members) -> None:
        self.mesh, self.turns = mesh, members.data_keys.shape[0] // mesh.size
        self.program, (cut, self.join) = _turn_program(trainer, mesh, padded), ensemble.turn_programs(mesh)
        in_turn = [cut(members, jnp.int32(i)) for i in range(self.turns)]
        self.trained = [ensemble.trained_part(member) for member in in_turn]
        self.fixed = [ensemble.with_trained(member, (None, None, None)) for member in in_turn]
        self.all = ensemble.with_trained(members, (None, None, None))
        self.zero = _zero(trainer.objective, mesh.size)
        self.sums = self._no_sums()

    def _no_sums(self) -> list[Any]:
        return [placement_lib.shard(self.zero, self.mesh) for _ in range(self.turns)]

    def step(self, batch: Any, weight: np.ndarray, epoch: int, number: int) -> None:
        """As `_Steps.step`."""
        before = self.sums[-1]
        numbers = np.int32(epoch), np.int32(number)
        for i in range(self.turns):
            turn = placement_lib.shard(jax.tree.map(lambda x, i=i: x[i :: self.turns], batch), self.mesh)
            self.trained[i], self.sums[i] = self.program(
                self.trained[i], self.sums[i], self.fixed[i], turn, weight, *numbers
            )
        jax.block_until_ready(before)

    def take_sums(self) -> Any:
        """As `_Steps.take_sums`."""
        sums, self.sums = self.join(self.sums), self._no_sums()
        return sums

    def members(self) -> Members:
        """As `_Steps.members`."""
        return ensemble.with_trained(self.all, self.join(self.trained))


def _zero(objective: Objective, count: int) -> Any:
    return jax.tree.map(lambda x: np.zeros(count, x.dtype), objective.zero())


def _member_step(trainer: Trainer, padded: bool) -> Callable[..., Any]:
    def step(state: Any, weight: Any, epoch: Any, number: Any) -> Any:
        trained, sums, fixed, (inputs, targets) = state
        member = ensemble.with_trained(fixed, trained)
        member, added = ensemble.numbered_step(trainer, member, inputs, targets, weight, epoch, number, padded=padded)
        return ensemble.trained_part(member), metrics.merge(sums, added)

    return step


@program_cache.by_contents()
def _step_program(trainer: Trainer, placement: Placement, mesh: Mesh, padded: bool) -> Any:
    step = _member_step(trainer, padded)

    def on_share(state: Any, *common: Any) -> Any:
        if placement == "vmap":
            return jax.vmap(step, in_axes=(0, None, None, None))(state, *common)
        return jax.lax.map(lambda member: step(member, *common), state)

    return _compiled(placement_lib.shard_map_stacked(on_share, mesh, replicated=3))


@program_cache.by_contents()
def _turn_program(trainer: Trainer, mesh: Mesh, padded: bool) -> Any:
    return _compiled(placement_lib.shard_map_single(_member_step(trainer, padded), mesh, 3))


def _compiled(run: Callable[..., Any]) -> Any:
    """(trained, sums, fixed, batch, weight, epoch, number) -> (trained, sums); what was trained is reused."""

    def program(trained: Any, sums: Any, fixed: Any, batch: Any, *common: Any) -> Any:
        return run((trained, sums, fixed, batch), *common)

    return jax.jit(program, donate_argnums=0)

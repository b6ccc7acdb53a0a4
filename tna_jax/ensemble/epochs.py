"""One epoch of all members, in the placement that the trainer asks for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree, Shaped

from tna_jax import metrics, program_cache, sharding
from tna_jax import placement as placement_lib
from tna_jax.ensemble import papa as papa_lib
from tna_jax.ensemble.members import Members, examples_of, trained_part, with_trained
from tna_jax.ensemble.papa import Papa
from tna_jax.ensemble.steps import batch_indices, batch_step
from tna_jax.ensemble.trainer import Trainer
from tna_jax.ensemble.turns import loop_epoch
from tna_jax.ensemble.validation import check_epoch, check_training_data, resolve
from tna_jax.masks.freezing import freeze
from tna_jax.metrics import AnyMetrics
from tna_jax.placement import Placement


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
      ValueError: a batch larger than the data, numbers of inputs and labels that differ, or a population with `papa` on several
        devices.
    """
    check_epoch(epoch)
    check_training_data(trainer, members, inputs, labels)
    placement = resolve(trainer, members, inputs, labels)
    sharding = members.data_keys.sharding
    mesh: Mesh = getattr(sharding, "mesh", None) or placement_lib.mesh([next(iter(members.data_keys.devices()))])
    papa_lib.check_device(trainer.papa, mesh)
    if (
        jax.process_count() == 1
    ):  # as they come out: else the next epoch is another program; what lies there already stays
        members = placement_lib.shard(members, mesh)
    if donate:
        members = placement_lib.distinct(members)
    if placement == "loop":
        return loop_epoch(trainer, members, inputs, labels, epoch, mesh)
    program = epoch_program(trainer, placement, mesh, donate)
    trained: tuple[Members, AnyMetrics] = program(members, inputs, labels, jnp.int32(epoch))
    return trained


@program_cache.by_contents()
def epoch_program(trainer: Trainer, placement: Placement, mesh: Mesh, donate: bool) -> Any:
    """Returns the compiled epoch of `map` and `vmap`: (members, inputs, labels, epoch) -> (members, metrics), over the mesh `mesh`."""

    def steps(member: Members, trained: Any, batches: Any, inputs: Any, labels: Any, epoch: Array) -> Any:
        """Some steps of one member; `trained` is what a step changes, and the metrics so far."""

        def step(carry: tuple[Any, ...], batch: tuple[Array, Array, Array]) -> tuple[tuple[Any, ...], None]:
            *trained, total = carry
            state = with_trained(member, trained)
            state, sums = batch_step(trainer, state, (inputs, labels), epoch, *batch)
            return (*trained_part(state), metrics.merge(total, sums)), None

        return jax.lax.scan(step, trained, batches)[0]

    def batches_of(member: Members, inputs: Any, epoch: Array) -> tuple[Array, Array, Array]:
        indices, weights = batch_indices(
            member.data_keys, epoch, examples_of(member, inputs), trainer.batch_size
        )  # (S, B)
        return jnp.arange(indices.shape[0], dtype=jnp.int32), indices, weights

    def member_epoch(member: Members, inputs: Any, labels: Any, epoch: Array) -> tuple[Members, AnyMetrics]:
        batches, start = batches_of(member, inputs, epoch), (*trained_part(member), trainer.objective.zero())
        *trained, total = steps(member, start, batches, inputs, labels, epoch)
        return with_trained(member, trained), total

    def each(function: Any, stacked: Any) -> Any:
        return jax.vmap(function)(stacked) if placement == "vmap" else jax.lax.map(function, stacked)

    def population_epoch(papa: Papa, members: Members, inputs: Any, labels: Any, epoch: Array) -> Any:
        batches = each(lambda member: batches_of(member, inputs, epoch), members)  # (M, S), (M, S, B)
        zero = jax.tree.map(
            lambda x: jnp.zeros((members.data_keys.shape[0], *x.shape), x.dtype), trainer.objective.zero()
        )

        def some_steps(state: Any, batches: Any) -> Any:
            return each(lambda x: steps(x[0], x[1], x[2], inputs, labels, epoch), (members, state, batches))

        def pulled(state: Any) -> Any:
            return (papa_lib.pull(papa, state[0], freeze(members.mask, trainer.freeze)), *state[1:])

        start = (*trained_part(members), zero)
        *trained, total = papa_lib.in_blocks(papa, batches[0].shape[1], some_steps, pulled, start, batches)
        return with_trained(members, trained), total

    def epoch_of_share(members: Members, inputs: Any, labels: Any, epoch: Array) -> Any:
        if trainer.papa is not None:
            return population_epoch(trainer.papa, members, inputs, labels, epoch)
        return each(lambda member: member_epoch(member, inputs, labels, epoch), members)

    return jax.jit(
        placement_lib.shard_map_stacked(epoch_of_share, mesh, replicated=3), donate_argnums=(0,) if donate else ()
    )

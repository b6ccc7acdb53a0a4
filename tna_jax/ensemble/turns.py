"""The placement `loop`: an epoch as a plain Python loop over compiled steps, each device's members in turn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from tna_jax import metrics, program_cache
from tna_jax import placement as placement_lib
from tna_jax.ensemble.members import Members, examples_of, trained_part, with_trained
from tna_jax.ensemble.papa import pull_in_turn
from tna_jax.ensemble.steps import batch_indices, batch_step
from tna_jax.ensemble.trainer import Trainer
from tna_jax.masks.freezing import freeze
from tna_jax.metrics import AnyMetrics


@program_cache.by_contents()
def step_programs(trainer: Trainer, mesh: Mesh) -> tuple[Any, Any, Any, Any]:
    """A step of one member on each device, and what cuts members out of their devices' shares and puts them back.

    One program for all devices, compiled once; they run side by side.
    """

    def step(state: Any, rest: Any, inputs: Any, labels: Any, epoch: Array, number: Array) -> tuple[Any, AnyMetrics]:
        trained, total = state
        fixed, (indices, weights) = rest  # (S, B) each
        batch = (epoch, number, indices[number], weights[number])
        member, sums = batch_step(trainer, with_trained(fixed, trained), (inputs, labels), *batch)
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


def loop_epoch(
    trainer: Trainer, members: Members, inputs: Any, labels: Any, epoch: int, mesh: Mesh
) -> tuple[Members, AnyMetrics]:
    """The same epoch as a plain Python loop: the reference of the other placements, and the fastest for convolutions on CPUs.

    Each member stays on its device; all devices take a step of one of theirs, then of the next.
    """
    step, epoch_batches, cut, join = step_programs(trainer, mesh)
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
        if trainer.papa is not None and (s + 1) % trainer.papa.every == 0:
            masks = [freeze(m.mask, trainer.freeze) for m in members_in_turn]
            pulled = pull_in_turn(trainer.papa, [state[0][0] for state in states], masks)
            states = [((params, *trained[1:]), total) for params, (trained, total) in zip(pulled, states, strict=True)]
    trained, totals = join(states)
    return with_trained(members, trained), totals

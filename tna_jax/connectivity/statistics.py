"""Running statistics of the models between: estimated anew, after a trial whether they can be."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from tna_jax import placement as placement_lib
from tna_jax import program_cache, repair
from tna_jax.connectivity.inputs import count_examples, part_of
from tna_jax.connectivity.points import Point
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.networks import Network, State, Stateful


def check_reset(network: Network, mesh: Mesh, models: Any, calibration: Any) -> None:
    """Raises ValueError where statistics estimated anew are not what the first member's evaluation reads."""
    batch = min(count_examples(calibration), _RESET_BATCH)
    gap = float(placement_lib.to_host(_reset_program(network, mesh, batch)(models, calibration)))
    if not gap <= repair.RESET_TOLERANCE:
        raise ValueError(
            "the running statistics of this network cannot be estimated anew: on one batch, evaluation with that batch's statistics "
            f"is {gap:.0%} away from training mode. Floating-point leaves of the state must be running averages of what training "
            "normalizes by; where evaluation corrects them by a count, give `settled` to networks.Stateful"
        )


_RESET_BATCH = 128
"""Examples on which a reset is tried."""


@program_cache.by_contents()
def _reset_program(network: Network, mesh: Mesh, batch: int) -> Any:
    def disagreement(models: Any, calibration: Any) -> Array:
        assert isinstance(network, Stateful)
        params, state = models
        first = part_of(calibration, slice(batch))
        return repair.reset_disagreement(network, member(params, 0), member(state, 0), first)

    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(disagreement, out_shardings=replicated)


def statistics_of_point(
    network: Network, params: Params, state: State, calibration: Any, point: Point, batch_size: int
) -> State:
    """The state of a point: a member's own where the point is that member; else estimated again."""
    stored = member(state, point.corner()[0])
    if not isinstance(network, Stateful) or calibration is None:
        return stored
    return chosen_statistics(
        state, repair.reset_batch_stats(network, params, stored, calibration, batch_size=batch_size), point
    )


def chosen_statistics(state: State, fresh: State, point: Point) -> State:
    """Returns the stored state of a member where the point is that member, else the state estimated anew."""
    index, alone = point.corner()
    return jax.tree.map(
        lambda stored, new: jnp.where(alone, stored, new.astype(stored.dtype)), member(state, index), fresh
    )

"""The placement `loop`: points as a plain Python loop over compiled pieces."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from tna_jax import metrics, program_cache, repair
from tna_jax import placement as placement_lib
from tna_jax.connectivity.inputs import count_examples, part_of, slices
from tna_jax.connectivity.one_pass import batch_metrics
from tna_jax.connectivity.points import Point
from tna_jax.connectivity.statistics import chosen_statistics
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State, Stateful
from tna_jax.objectives import Objective


@program_cache.by_contents()
def point_programs(network: Network, objective: Objective, mesh: Mesh) -> list[Any]:
    """The pieces of one point on each device: one program each for all devices, compiled once (and once for a rest)."""

    def mixed(point: Point, models: Any) -> tuple[Params, State]:
        return point.params(models[0]), repair.no_statistics(member(models[1], point.corner()[0]))

    def statistics(sums: Any, inputs: Any, share: Array) -> State:
        assert isinstance(network, Stateful)  # else there is no calibration
        total, form, params = sums
        return repair.add_statistics(network, total, params, form, inputs, share)

    def chosen(estimate: Any, models: Any) -> State:
        point, fresh = estimate
        return chosen_statistics(models[1], fresh, point)

    def stored(point: Point, models: Any) -> State:
        return member(models[1], point.corner()[0])

    def batch(running: Any, inputs: Any, targets: Any) -> AnyMetrics:
        total, params, state = running
        merged: AnyMetrics = metrics.merge(total, batch_metrics(network, params, state, inputs, targets, objective))
        return merged

    pieces = ((mixed, 1), (statistics, 2), (chosen, 1), (stored, 1), (batch, 2))
    return [jax.jit(placement_lib.shard_map_single(piece, mesh, replicated)) for piece, replicated in pieces]


def loop_points(
    network: Network, objective: Objective, tasks: Point, copies: Any, batch_size: int, mesh: Mesh
) -> dict[str, AnyMetrics]:
    """The points as a plain Python loop over models and batches, all devices side by side: the reference of the one-pass
    program, and the fastest for convolutions on CPUs."""
    mixed, statistics, chosen, stored, batch = point_programs(network, objective, mesh)
    models, calibration, data = copies
    shares = jax.tree.leaves(tasks)[0].shape[0] // mesh.size
    turns = [
        placement_lib.shard(jax.tree.map(lambda x, i=i: x[i::shares], placement_lib.to_host(tasks)), mesh)
        for i in range(shares)
    ]
    points = []
    for task in turns:  # task t of each device's share
        params, state = mixed(task, models)
        if calibration is not None:
            form = stored(task, models)
            for part in slices(count_examples(calibration), batch_size):
                share = np.float32((part.stop - part.start) / count_examples(calibration))
                state = statistics((state, form, params), part_of(calibration, part), share)
            state = chosen((task, state), models)
        else:
            state = stored(task, models)
        totals = {}
        for split, arrays in data.items():
            zero = jax.tree.map(lambda x: np.zeros(mesh.size, x.dtype), objective.zero())
            totals[split] = placement_lib.shard(zero, mesh)
            for part in slices(count_examples(arrays), batch_size):
                totals[split] = batch((totals[split], params, state), *part_of(arrays, part))
        points.append(totals)
    joined: dict[str, AnyMetrics] = jax.tree.map(
        lambda *x: np.stack(x, axis=1).reshape(-1), *placement_lib.to_host(points)
    )
    return joined

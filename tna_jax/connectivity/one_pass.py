"""All points of a device's share in one program: the placements `map` and `vmap`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tna_jax import metrics, networks, program_cache
from tna_jax import placement as placement_lib
from tna_jax.connectivity.inputs import count_examples, part_of
from tna_jax.connectivity.points import Point
from tna_jax.connectivity.statistics import statistics_of_point
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement


@program_cache.by_contents()
def path_program(network: Network, objective: Objective, placement: Placement, mesh: Mesh, batch_size: int) -> Any:
    """Returns the compiled pass: (points, models, calibration, splits) -> metrics by split, points over the devices of `mesh`."""

    def split_metrics(params: Params, state: State, *data: Any) -> AnyMetrics:
        examples = count_examples(data)
        size = min(batch_size, examples)
        full = examples // size * size  # examples of the batches that are full

        def step(total: AnyMetrics, part: Any) -> tuple[AnyMetrics, None]:
            inputs, targets = part
            return metrics.merge(total, batch_metrics(network, params, state, inputs, targets, objective)), None

        cut = jax.tree.map(lambda x: x[:full].reshape(-1, size, *x.shape[1:]), data)
        total, _ = jax.lax.scan(step, objective.zero(), cut)
        if full == examples:
            return total
        inputs, targets = part_of(data, slice(full, None))
        return metrics.merge(total, batch_metrics(network, params, state, inputs, targets, objective))

    def on_share(tasks: Any, models: Any, calibration: Any, data: Any) -> Any:
        members, states = models

        def point_metrics(point: Point) -> dict[str, AnyMetrics]:
            params = point.params(members)
            state = statistics_of_point(network, params, states, calibration, point, batch_size)
            return {split: split_metrics(params, state, *arrays) for split, arrays in data.items()}

        return jax.vmap(point_metrics)(tasks) if placement == "vmap" else jax.lax.map(point_metrics, tasks)

    return jax.jit(placement_lib.shard_map_stacked(on_share, mesh, replicated=3))


def batch_metrics(
    network: Network,
    params: Params,
    state: State,
    inputs: Any,
    targets: Any,
    objective: Objective = CLASSIFICATION,
) -> AnyMetrics:
    """Computes the metrics of one batch for one model, every example with weight 1."""
    outputs = networks.evaluate(network, params, state, inputs)
    return objective.sums(outputs, targets, jnp.ones(jax.tree.leaves(targets)[0].shape[:1], jnp.float32))

"""The metrics of many points on every split, arrays at once and streams part by part."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tna_jax import networks, objectives, program_cache, streaming, trees
from tna_jax import placement as placement_lib
from tna_jax.connectivity.inputs import Data, Split, first_inputs
from tna_jax.connectivity.one_pass import path_program
from tna_jax.connectivity.points import Point
from tna_jax.connectivity.statistics import check_reset
from tna_jax.connectivity.turns import loop_points
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, State
from tna_jax.objectives import Objective
from tna_jax.placement import Placement
from tna_jax.streaming import Stream

_STREAMED_BYTES = 2**27
"""Inputs of a stream that are measured at once, about, where something has to be computed for them beside the batches."""


def evaluate_points(
    network: Network,
    members: Params,
    state: State,
    calibration: Any,
    tasks: Point,
    data: Data,
    objective: Objective,
    batch_size: int,
    placement: Placement,
) -> dict[str, AnyMetrics]:
    """The metrics of the points by split. A stream is read part by part, and the sums are added on the host in float64."""
    objectives.check_batch_size(batch_size)
    model = jax.tree.map(lambda p: trees.shape_of(p, p.shape[1:]), (members, state))
    first = first_inputs(data)
    example = jax.tree.map(lambda x: trees.shape_of(x, (1, *x.shape[1:])), first)
    run = functools.partial(networks.evaluate, network)
    placement = placement_lib.resolve(placement, run, *model, example)
    classes = (
        getattr(program_cache.output_shapes(run, *model, example), "shape", (None,))[-1] if objective.classes else None
    )
    arrays = {split: part for split, part in data.items() if not isinstance(part, Stream)}
    results = {}
    if arrays:
        results = _evaluate_arrays(
            network, members, state, calibration, tasks, arrays, objective, batch_size, placement, classes
        )
    for split, stream in data.items():
        if not isinstance(stream, Stream):
            continue
        if not len(stream):
            raise ValueError(f"split {split!r} has no examples")
        size, mesh = batch_size, placement_lib.mesh()
        params, states, fixed = placement_lib.replicate((members, state, calibration), mesh)
        if calibration is not None:  # its statistics are estimated anew for every part
            example_bytes = sum(x[:1].nbytes for x in jax.tree.leaves(streaming.example(stream)[0]))
            size *= max(1, _STREAMED_BYTES // max(batch_size * example_bytes, 1))
        total: Any = None
        for part in streaming.parts(stream, size):
            points = _evaluate_arrays(
                network, params, states, fixed, tasks, {split: part}, objective, batch_size, placement, classes
            )
            total = streaming.sum_parts(total, points[split])
        results[split] = total
    return {split: results[split] for split in data}


def _evaluate_arrays(
    network: Network,
    members: Params,
    state: State,
    calibration: Any,
    tasks: Point,
    data: Mapping[str, Split],
    objective: Objective,
    batch_size: int,
    placement: Placement,
    classes: int | None,
) -> dict[str, AnyMetrics]:
    for split, (inputs, targets) in data.items():
        what = f"split {split!r} has " if split else ""
        if not objectives.check_examples(objective, inputs, targets, what, classes):
            raise ValueError(f"split {split!r} has no examples")
    mesh, count = placement_lib.mesh(), len(jax.tree.leaves(tasks)[0])
    if not count:  # one model has no pairs
        return {split: jax.tree.map(lambda x: np.zeros(0, x.dtype), objective.zero()) for split in data}
    copies = placement_lib.replicate(((members, state), calibration, dict(data)), mesh)
    if calibration is not None:
        check_reset(network, mesh, copies[0], copies[1])
    tasks = placement_lib.shard(placement_lib.pad(jax.tree.map(np.asarray, tasks), mesh.size), mesh)
    if placement == "loop":
        points = loop_points(network, objective, tasks, copies, batch_size, mesh)
    else:
        points = placement_lib.to_host(path_program(network, objective, placement, mesh, batch_size)(tasks, *copies))
    unpadded: dict[str, AnyMetrics] = jax.tree.map(lambda x: x[:count], points)
    return unpadded

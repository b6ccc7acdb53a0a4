"""Averages of a population after REPAIR: whether its network can be repaired, and how they are evaluated."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity, repair
from tna_jax.averaging import average_stacked
from tna_jax.barriers import Path
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import Network, Stateful
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.population.fusion_methods import Data, Mix
from tna_jax.programs.population.load import Population
from tna_jax.programs.training.splits import training_inputs

Repairable = tuple[nn.Module | Network, Callable[[Any], Any]]
"""What REPAIR takes for a network, and what is run on its stored inputs first."""


TRIED = 64
"""Training examples on which it is tried whether a network of the user's own can be repaired."""


def repairable(population: Population) -> Repairable:
    """Returns what REPAIR takes for the network of a population, and what is run on its stored inputs first.

    Raises:
      UsageError: REPAIR cannot be done: the network has a state, or its layers cannot be told apart.
    """
    if isinstance(population.network, Stateful):
        raise UsageError("this network has BatchNorm; its statistics are estimated again in any case")
    if population.module is not None:
        return population.module, population.data.preprocess
    ends, inputs = [member(population.params, i) for i in (0, 1)], training_inputs(population.data, TRIED)
    try:
        tried = repair.repair_line(population.exact, ends[0], ends[1], 0.5, inputs)
    except ValueError as error:
        raise UsageError(f"REPAIR does not go with {population.what}: {error}") from error
    if tried.unknown:
        print_warning(f"REPAIR leaves layers as they are whose units it does not know: {', '.join(tried.unknown)}")
    return population.exact, _as_stored


def _as_stored(inputs: Any) -> Any:
    return inputs


def layers_without_bias(repairable: Repairable, population: Population) -> tuple[str, ...]:
    """Returns the layers of a network whose repaired shift no bias of theirs can hold, so that no file can either."""
    module, preprocess = repairable
    first, inputs = member(population.params, 0), training_inputs(population.data, 2)
    shift = jax.eval_shape(lambda p: repair.repair(module, p, [p], [1.0], inputs, preprocess=preprocess).shift, first)
    return tuple(shift)


def repaired(
    module: nn.Module | Network,
    preprocess: Callable[[Any], Any],
    members: Params,
    calibration: jax.Array,
    placement: Placement,
    objective: Objective = CLASSIFICATION,
) -> Mix:
    """Returns how averages are evaluated after REPAIR on `calibration` (N, ...); of networks without running statistics.

    Args:
      module, preprocess: see `repairable`.
      members: (M, ...).
      objective: what is measured.
    """
    network = shifted(module, preprocess)

    def mix(weights: np.ndarray, data: Data) -> dict[str, AnyMetrics]:
        averages = []
        for shares in weights:
            used = np.flatnonzero(shares)
            ends = [member(members, int(i)) for i in used]
            repaired_average = repair.repair(
                module, average_stacked(members, shares), ends, shares[used], calibration, preprocess=preprocess
            )
            averages.append((repaired_average.params, repaired_average.shift))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *averages)
        return connectivity.evaluate(network, stacked, data, objective=objective, placement=placement)

    return mix


def repaired_path(
    repairable: Repairable,
    ends: Params,
    alphas: np.ndarray,
    data: Data,
    calibration: jax.Array,
    placement: Placement,
    objective: Objective = CLASSIFICATION,
) -> dict[str, Path]:
    """Computes the path between two models after REPAIR of each of its points, the ends included: these stay as they are.

    Args:
      repairable: see there.
      ends: (2, ...).
      alphas: (A,) the points.
      data: what is measured.
      calibration: (N, ...) training inputs.
      objective: by which.
    """
    mix = repaired(*repairable, ends, calibration, placement, objective)
    points = mix(np.stack([1 - alphas, alphas], axis=1).astype(np.float32), data)
    return {split: Path(alphas, jax.tree.map(np.asarray, metrics)) for split, metrics in points.items()}


@functools.lru_cache(maxsize=8)
def shifted(module: nn.Module | Network, preprocess: Callable[[Any], Any]) -> Network:
    """Returns the repaired network as a function of (params, shifts) and inputs: one function, so that it compiles once."""

    def apply(params: Any, inputs: jax.Array) -> Any:
        return repair.Repaired(params[0], params[1], ()).apply(module, preprocess(inputs))

    return apply

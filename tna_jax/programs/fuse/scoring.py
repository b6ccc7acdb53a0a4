"""Scores models that are no averages: running statistics estimated again, or units repaired, then evaluated, a few at a time."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity, repair
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State, Stateful
from tna_jax.placement import Placement
from tna_jax.programs.population.fusion_methods import Data
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable, shifted


class Finished(NamedTuple):
    """A model with what makes it fit its data."""

    params: Params
    state: State
    """Running statistics; `()` without any."""
    shift: dict[str, Any]
    """Of a repaired network's layers without a bias, see `tna_jax.repair.Repaired`."""


class Scorer(NamedTuple):
    """What merged models are evaluated with."""

    population: Population
    members: Params
    """(M, ...)"""
    states: State
    """(M, ...)"""
    calibration: jax.Array
    """(N, ...) training inputs."""
    repairable: Repairable | None
    placement: Placement
    weights: tuple[float, ...] | None = None
    """Of the models, to whose units a merge is repaired; None: equal."""

    def finish(self, params: Params) -> Finished:
        """Returns a merged model with its statistics estimated again, or its units repaired to those of all models."""
        if self.repairable is not None:
            module, preprocess = self.repairable
            count = len(self.population.models)
            ends = [member(self.members, i) for i in range(count)]
            weights = np.ones(count) if self.weights is None else np.array(self.weights)
            repaired = repair.repair(
                module, params, ends, weights / weights.sum(), self.calibration, preprocess=preprocess
            )
            return Finished(repaired.params, (), repaired.shift)
        network = self.population.network
        if not isinstance(network, Stateful):
            return Finished(params, (), {})
        state = repair.reset_batch_stats(network, params, member(self.states, 0), self.calibration)
        return Finished(params, state, {})

    def evaluate(self, models: Sequence[Finished], data: Data) -> dict[str, AnyMetrics]:
        """Computes the metrics (T,) of T models for each split."""
        parts = [self._evaluate(part, data) for part in _groups(models, len(jax.devices()))]
        return {split: jax.tree.map(lambda *x: np.concatenate(x), *(part[split] for part in parts)) for split in data}

    def _evaluate(self, models: list[Finished], data: Data) -> dict[str, AnyMetrics]:
        stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(leaf) for leaf in x]), *models)
        options: dict[str, Any] = {"objective": self.population.objective, "placement": self.placement}
        if self.repairable is not None:
            return connectivity.evaluate(shifted(*self.repairable), (stacked.params, stacked.shift), data, **options)
        return connectivity.evaluate(self.population.network, stacked.params, data, state=stacked.state, **options)


def _groups(models: Sequence[Finished], size: int) -> Iterator[list[Finished]]:
    for first in range(0, len(models), size):
        yield list(models[first : first + size])


def written(name: str, model: Finished) -> tuple[Params, State]:
    """Returns what of a model a file holds.

    Raises:
      UsageError: it was repaired, and has layers without a bias, whose shifts its parameters cannot hold.
    """
    if model.shift:
        layers: Iterable[str] = model.shift
        raise UsageError(
            f"--repair --out: the layers {', '.join(layers)} of {name} have no bias that could hold their repaired shift; leave out --repair"
        )
    return model.params, model.state

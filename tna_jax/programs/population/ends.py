"""The models' own running statistics, estimated again as those of all models between them are."""

import jax
import numpy as np

from tna_jax import repair
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.networks import Stateful
from tna_jax.programs.population.load import Population


def check(population: Population) -> None:
    """Raises UsageError for a network without running statistics."""
    if not isinstance(population.network, Stateful):
        raise UsageError(
            f"--reset-ends: {population.what} has no running statistics (BatchNorm); REPAIR leaves the ends of a path as they are"
        )


def reset(population: Population, calibration: jax.Array) -> Population:
    """Returns the population with the running statistics of every model estimated again.

    A trained model has those of its training, with its momentum and its augmentation. Where only the models between are
    estimated again, a part of what separates them from the ends is that, and not the path.

    Args:
      population: the models.
      calibration: (N, ...) training inputs.
    """
    network = population.network
    states = [
        jax.tree.map(
            np.asarray,
            repair.reset_batch_stats(network, member(population.params, i), member(population.state, i), calibration),
        )
        for i in range(len(population.models))
    ]
    return population._replace(state=jax.tree.map(lambda *leaves: np.stack(leaves), *states))

"""What `tna fuse --method` is to merge: methods, the options to try, weights, base and inputs; whatever can be refused is, before any work."""

from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError
from tna_jax.merging.method import Scope
from tna_jax.programs.fuse import base as fuse_base
from tna_jax.programs.fuse import data_aware, methods
from tna_jax.programs.fuse.base import Base
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.population.load import Population
from tna_jax.programs.training.splits import training_inputs

AVERAGE = "average"
"""Stands beside every other method."""


class Plan(NamedTuple):
    """What is merged how; all that can be refused was."""

    tried: dict[str, list[dict[str, Any]]]
    """The options to try, by method; the average is the first."""
    base: Base | None
    inputs: Any
    """(N, ...) training inputs for methods that look at data; None without any."""
    scope: Scope
    weights: tuple[float, ...] | None = None
    """One for each model; None: equal."""


def plan(settings: FuseOptions, population: Population) -> Plan | None:
    """Returns what is to be merged; None without `--method`.

    Raises:
      UsageError: a method needs a base and there is none, does not fit the network, its objective or the number of models, or has
        no such option; or another number of weights than models.
    """
    if not settings.method:
        return None
    count = len(population.models)
    if settings.weights is not None and len(settings.weights) != count:
        raise UsageError(f"--weights: {len(settings.weights)} for {count} models; give one for each")
    names = [AVERAGE, *(name for name in settings.method if name != AVERAGE)]
    tried = methods.grids(names, settings.method_options, count, settings.weights)
    inputs = None
    if set(names) & set(methods.DATA_AWARE):
        inputs = training_inputs(population.data, settings.merge_examples)
        data_aware.check(names, population, inputs[:2])
    needing = [name for name in names if methods.ALL[name].needs_base]
    base = fuse_base.of_population(population, settings.base, needing) if needing else None
    return Plan(tried, base, inputs, settings.scope, settings.weights)

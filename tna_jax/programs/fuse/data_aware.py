"""Merges that look at training inputs: Fisher merging, RegMean and AdaMerging, on the models of runs. No labels are used."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.masks import Params
from tna_jax.merging.adaptive import adamerging
from tna_jax.merging.fisher import fisher_information, fisher_merge
from tna_jax.merging.grams import dense_layers, gram_matrices
from tna_jax.merging.regression import regmean
from tna_jax.networks import Network, State, Stateful
from tna_jax.programs.population.load import Population

SOFTMAX = ("classification", "next-token", "masked-lm", "segmentation")
"""Objectives whose outputs are logits of classes."""


class Material(NamedTuple):
    """What these methods merge, and what they look at."""

    network: Network
    """In float32."""
    models: list[Params]
    states: list[State]
    base: Params | None
    inputs: Any
    """(N, ...) training inputs."""
    weights: Sequence[float] | None = None
    """One for each model; None: equal."""


class Merged(NamedTuple):
    """A merged model, and what a report says of how it came to be."""

    params: Params
    facts: dict[str, Any]


Merge = Callable[..., Merged]
"""The options of the method to a merged model."""


def check(names: Sequence[str], population: Population, inputs: Any) -> None:
    """Raises UsageError that names every method which does not fit the network or the objective.

    Args:
      names: of methods of any kind.
      population: the models.
      inputs: a few training inputs.
    """
    collect_errors(*(functools.partial(CHECKS[name], population, inputs) for name in names if name in CHECKS))


def _check_fisher(population: Population, inputs: Any) -> None:
    if not population.objective.classes:
        raise UsageError(
            f"--method fisher takes the expectation over class labels, one for each example; these models were trained for "
            f"{population.objective.name}"
        )


def _check_regmean(population: Population, inputs: Any) -> None:
    params, state = jax.tree.map(lambda leaf: leaf[0], (population.params, population.state))
    if not dense_layers(population.exact, params, inputs, state=state):
        raise UsageError(
            f"--method regmean merges dense layers, and {population.what} has none that is a matrix product of activations with a "
            "parameter as it stands"
        )


def _check_adamerging(population: Population, inputs: Any) -> None:
    if not (population.objective.classes or population.objective.name in SOFTMAX):
        raise UsageError(
            "--method adamerging makes predictions of classes certain; these models were trained for "
            f"{population.objective.name}"
        )
    if isinstance(population.network, Stateful):
        raise UsageError(
            f"--method adamerging: {population.what} has running statistics (BatchNorm), which fit no model between those that "
            "were trained; fisher, regmean and all data-free methods take it"
        )


CHECKS = {"fisher": _check_fisher, "regmean": _check_regmean, "adamerging": _check_adamerging}


def merger(name: str, material: Material) -> Merge:
    """Returns the function of a method; what does not depend on its options is computed once, here."""
    return MERGERS[name](material)


def _fisher(material: Material) -> Merge:
    fishers = [
        fisher_information(material.network, params, material.inputs, state=state)
        for params, state in zip(material.models, material.states, strict=True)
    ]
    return lambda floor: Merged(fisher_merge(material.models, fishers, material.weights, floor=floor), {})


def _regmean(material: Material) -> Merge:
    grams = [
        gram_matrices(material.network, params, material.inputs, state=state)
        for params, state in zip(material.models, material.states, strict=True)
    ]
    facts = {"dense_layers": sorted(grams[0])}
    return lambda scale: Merged(regmean(material.models, grams, material.weights, scale=scale), facts)


def _adamerging(material: Material) -> Merge:
    def merge(coefficients: str, start: float, steps: int, learning_rate: float, batch_size: int, seed: int) -> Merged:
        assert material.base is not None
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes integers and floats
            learned = adamerging(
                material.network, material.models, material.base, [material.inputs], key=jax.random.key(seed),
                layerwise=coefficients == "layer", steps=steps, batch_size=batch_size, start=start,
                optimizer=optax.adam(learning_rate),
            )  # fmt: skip
        entropies = [float(np.mean(part)) for part in (learned.entropies[:10], learned.entropies[-10:])]
        values = {path: value.tolist() for path, value in learned.coefficients.items()}
        learned_values = values if coefficients == "layer" else next(iter(values.values()))
        return Merged(
            learned.params,
            {"coefficients": learned_values, "entropy_before": entropies[0], "entropy_after": entropies[1]},
        )

    return merge


MERGERS: dict[str, Callable[[Material], Merge]] = {"fisher": _fisher, "regmean": _regmean, "adamerging": _adamerging}

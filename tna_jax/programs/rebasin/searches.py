"""How `tna rebasin` searches: pair by pair, or all models to their mean at once."""

import time
from collections.abc import Callable
from typing import Any

import jax

from tna_jax.ensemble import member
from tna_jax.matching import permutations
from tna_jax.matching.many import merge_many
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.matching.weights import Matching, activation_matching, weight_matching
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population.load import Population
from tna_jax.programs.rebasin.options import RebasinOptions

Find = Callable[[tuple[int, int], str], Matching]
"""A pair and a method to the second model, matched to the first."""
Joint = dict[str, Any]
"""Of all models matched to their mean: rounds and seconds of the one search."""


def search_of(
    spec: PermutationSpec, opened: Population, calibration: jax.Array, settings: RebasinOptions
) -> tuple[Find, Joint | None]:
    """Returns how the models of a pair are matched; those that are matched all at once are so when this returns.

    Args:
      spec: of the network.
      opened: the models.
      calibration: (N, ...) training inputs, for activation matching.
      settings: to what models are matched, and what a search takes.
    """
    return (
        _to_mean(spec, opened, settings) if settings.to_mean else (_in_pairs(spec, opened, calibration, settings), None)
    )


def _in_pairs(spec: PermutationSpec, opened: Population, calibration: jax.Array, settings: RebasinOptions) -> Find:
    """Matches the second of two models to the first, whatever the others are."""

    def find(pair: tuple[int, int], method: str) -> Matching:
        (a, b), states = ([member(tree, i) for i in pair] for tree in (opened.params, opened.state))
        key, restarts = jax.random.key(settings.seed), settings.starts
        if method == "weight":
            return weight_matching(spec, a, b, state=states[1], key=key, restarts=restarts)
        return activation_matching(spec, a, b, calibration, states=(states[0], states[1]), key=key, restarts=restarts)

    return find


def _to_mean(spec: PermutationSpec, opened: Population, settings: RebasinOptions) -> tuple[Find, dict[str, Any]]:
    """Matches all models to their mean at once; a pair is then compared in the order of its first."""
    start = time.perf_counter()
    with console.status(f"matching {len(opened.models)} models to their mean"):
        merged = merge_many(
            spec, opened.params, state=opened.state, key=jax.random.key(settings.seed), restarts=settings.starts
        )
    seconds = time.perf_counter() - start

    def find(pair: tuple[int, int], method: str) -> Matching:
        order = merged.between(*pair)
        params, state = (member(tree, pair[1]) for tree in (opened.params, opened.state))
        return merged.matchings[pair[1]]._replace(
            params=permutations.apply_permutation(spec, order, params),
            state=permutations.permute_state(spec, order, state),
            permutation=order,
        )

    return find, {"rounds": merged.rounds, "seconds": seconds}

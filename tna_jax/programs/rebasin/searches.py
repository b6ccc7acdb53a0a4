"""How `tna rebasin` searches: pair by pair, or all models to their mean at once."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.assignment import Matching
from tna_jax.matching.many import merge_many
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.matching.weights import activation_matching, weight_matching
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population.load import Population
from tna_jax.programs.rebasin.options import ROTATION, RebasinOptions
from tna_jax.programs.rebasin.rotation import rotation_search

FACTS = ("objective", "sweeps", "assignments", "moving", "moved")
TO_THE_MEAN = " to the mean"


class Matched(NamedTuple):
    """What a search found for a pair."""

    first: Params
    """The model that was matched to; turned networks are near it in another form of the same function."""
    second: Params
    """The other one, matched."""
    state: State
    """That of the second."""
    permutation: dict[str, Any]
    """By group; of units in heads as `matching.apply_head_permutation` takes them."""
    facts: dict[str, Any]
    """What it reached and took."""


class Search(NamedTuple):
    """A way to match the models of a pair."""

    method: str
    kind: str
    """In words, as tables name it."""
    find: Callable[[tuple[int, int]], Matched]


Joint = dict[str, Any]
"""Of all models matched to their mean: rounds, seconds and starts of the one search."""


def searches_of(
    spec: PermutationSpec, opened: Population, calibration: jax.Array, settings: RebasinOptions
) -> tuple[list[Search], Joint | None]:
    """Returns the ways in which the models of pairs are matched; that to the mean of all is gone when this returns.

    Args:
      spec: of the network.
      opened: the models.
      calibration: (N, ...) training inputs, for activation matching.
      settings: to what models are matched, and what a search takes.
    """
    searches = [
        Search(method, f"{method} matching", _in_pairs(spec, opened, calibration, settings, method))
        for method in settings.chosen_methods
    ]
    if not settings.to_mean:
        return searches, None
    search, joint = _to_mean(spec, opened, settings)
    return [*searches, search], joint


def _in_pairs(
    spec: PermutationSpec, opened: Population, calibration: jax.Array, settings: RebasinOptions, method: str
) -> Callable[[tuple[int, int]], Matched]:
    """Matches the second of two models to the first, whatever the others are."""
    key, restarts = jax.random.key(settings.seed), settings.starts
    if method == ROTATION:
        turn = rotation_search(spec, opened, settings)

        def turned(pair: tuple[int, int]) -> Matched:
            start = time.perf_counter()
            match = turn(*_models(opened, pair))
            facts = {"objective": match.objective, "rounds": match.rounds, "seconds": time.perf_counter() - start}
            return Matched(match.reference, match.params, member(opened.state, pair[1]), match.permutation, facts)

        return turned

    def find(pair: tuple[int, int]) -> Matched:
        (a, b), states = _models(opened, pair), [member(opened.state, i) for i in pair]
        start = time.perf_counter()
        if method == "weight":
            matching = weight_matching(spec, a, b, state=states[1], key=key, restarts=restarts)
        else:
            both = states[0], states[1]
            matching = activation_matching(spec, a, b, calibration, states=both, key=key, restarts=restarts)
        return _matched(a, matching, time.perf_counter() - start)

    return find


def _to_mean(spec: PermutationSpec, opened: Population, settings: RebasinOptions) -> tuple[Search, Joint]:
    """Matches all models to their mean at once; a pair is then compared in the order of its first."""
    starts = settings.restarts or 4
    start = time.perf_counter()
    with console.status(f"matching {len(opened.models)} models to their mean"):
        merged = merge_many(spec, opened.params, state=opened.state, key=jax.random.key(settings.seed), restarts=starts)
    seconds = time.perf_counter() - start

    def find(pair: tuple[int, int]) -> Matched:
        order = merged.between(*pair)
        (a, b), state = _models(opened, pair), member(opened.state, pair[1])
        matching = merged.matchings[pair[1]]._replace(
            params=permutations.apply_permutation(spec, order, b),
            state=permutations.permute_state(spec, order, state),
            permutation=order,
        )
        return _matched(a, matching, seconds)

    return Search("weight", f"weight matching{TO_THE_MEAN}", find), {
        "rounds": merged.rounds,
        "seconds": seconds,
        "restarts": starts,
    }


def _models(opened: Population, pair: tuple[int, int]) -> tuple[Params, Params]:
    first, second = (member(opened.params, i) for i in pair)
    return first, second


def _matched(first: Params, matching: Matching, seconds: float) -> Matched:
    facts = {key: getattr(matching, key) for key in FACTS} | {"seconds": seconds}
    return Matched(first, matching.params, matching.state, matching.permutation, facts)

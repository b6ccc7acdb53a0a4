"""Matches the models of a population, and says how alike their hidden units are before and after."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.matching.similarity import UnitCorrelations
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population.load import Population
from tna_jax.programs.rebasin import searches
from tna_jax.programs.rebasin.options import ROTATION, RebasinOptions
from tna_jax.programs.rebasin.searches import Joint, Matched, Search
from tna_jax.programs.training.splits import training_inputs

SHOWN = 48
"""Units of a group whose correlations are recorded and drawn: the first ones."""


class Match(NamedTuple):
    """The second model of a pair, matched to the first."""

    pair: tuple[int, int]
    method: str
    kind: str
    """In words, as tables name it."""
    permutation: dict[str, np.ndarray]
    """By group; of units in heads as `matching.apply_head_permutation` takes them."""
    search: dict[str, Any]
    """What the search reached and took."""
    turned: tuple[Params, Params] | None
    """Both models where the second was turned; None where a permutation says all."""
    groups: list[dict[str, Any]]
    """By group: its units, how many moved, and the mean correlation of units at the same place, before and after."""


class Matches(NamedTuple):
    """What matching a population found."""

    spec: PermutationSpec
    matches: list[Match]
    """Pair by pair, each by all methods."""
    picture: dict[str, Any] | None
    """Correlations of the units of one group of the first pair, before and after; None where no activations are known."""
    joint: Joint | None
    """Of all models matched to their mean; None where they were not."""

    def ends(self, opened: Population, match: Match) -> tuple[tuple[Params, State], tuple[Params, State]]:
        """Returns both models of a pair with their states: the first, and the second with its units in the order of the first's."""
        (a, b), (a_state, b_state) = ([member(tree, i) for i in match.pair] for tree in (opened.params, opened.state))
        if match.turned is not None:
            return (match.turned[0], a_state), (match.turned[1], b_state)
        moved = permutations.apply_permutation(self.spec, match.permutation, b)
        return (a, a_state), (moved, permutations.permute_state(self.spec, match.permutation, b_state))


def match_pairs(opened: Population, pairs: np.ndarray, settings: RebasinOptions) -> Matches:
    """Matches the second model of every pair to the first, by every method.

    Args:
      opened: the models.
      pairs: (P, 2) their numbers.
      settings: the methods and what they take.

    Raises:
      UsageError: the groups of the network cannot be found, or none has the name that is to be drawn.
    """
    calibration = training_inputs(opened.data, settings.calibration_examples)
    first, state = member(opened.params, 0), member(opened.state, 0)
    try:
        spec = permutations.permutation_spec(opened.exact, first, calibration[:16], state)
    except ValueError as error:
        raise UsageError(f"{settings.runs[0]}: {error}") from error
    if settings.group is not None and settings.group not in spec.groups:
        raise UsageError(f"--group {settings.group}: the groups of this network are {', '.join(spec.groups)}")
    correlations = UnitCorrelations(spec, calibration)
    ways, joint = searches.searches_of(spec, opened, calibration, settings)
    matches: list[Match] = []
    picture = None
    for pair in track(pairs, "matching pairs", console=console, transient=True):
        i, j = map(int, pair)
        for match, before, after in _by_each(spec, opened, (i, j), ways, correlations):
            matches.append(match)
            if len(matches) == 1:
                picture = _picture(match, before, after, settings.group)
    return Matches(spec, matches, picture, joint)


Similarities = dict[str, np.ndarray]


def _by_each(
    spec: PermutationSpec, opened: Population, pair: tuple[int, int], ways: list[Search], correlations: UnitCorrelations
) -> Iterator[tuple[Match, Similarities, Similarities]]:
    (a, b), (a_state, b_state) = ([member(tree, i) for i in pair] for tree in (opened.params, opened.state))
    before = correlations(a, b, (a_state, b_state))
    for way in ways:
        matched = way.find(pair)
        after = correlations(matched.first, matched.second, (a_state, matched.state))
        groups = [
            {"group": name, **_counts(matched, name, size),
             "similarity_before": _at_same_place(before, name), "similarity_after": _at_same_place(after, name)}
            for name, size in spec.groups.items()
        ]  # fmt: skip
        turned = (matched.first, matched.second) if way.method == ROTATION else None
        yield Match(pair, way.method, way.kind, matched.permutation, matched.facts, turned, groups), before, after


def _counts(matched: Matched, group: str, size: int) -> dict[str, Any]:
    """Units of a group, in all heads where each has an order of its own, and how many moved; None for those of a stream that was turned."""
    order = matched.permutation.get(group)
    if order is None:
        return {"units": size, "moved": None}
    return {"units": len(order), "moved": int((order != np.arange(len(order))).sum())}


def _at_same_place(similarities: Similarities, group: str) -> float | None:
    return float(np.diagonal(similarities[group]).mean()) if group in similarities else None


def _picture(match: Match, before: Similarities, after: Similarities, group: str | None) -> dict[str, Any] | None:
    if group is not None and group not in before:
        raise UsageError(f"--group {group}: its units meet no weights; there are correlations of {', '.join(before)}")
    if not before:
        return None
    group = group or next(iter(before))
    shown = {name: values[group][:SHOWN, :SHOWN].round(3) for name, values in (("before", before), ("after", after))}
    return {
        "pair": match.pair,
        "method": match.method,
        "kind": match.kind,
        "group": group,
        "units": len(before[group]),
        **shown,
    }

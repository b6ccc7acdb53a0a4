"""Coordinate ascent: one group of units after the other gets the best order given those of all others, until none gains anything."""

from collections.abc import Mapping, Set
from typing import Protocol, runtime_checkable

import numpy as np

from tna_jax.matching import permutations
from tna_jax.matching.assignment import assign
from tna_jax.matching.gains import front_to_back
from tna_jax.matching.permutations import Permutation, PermutationSpec


@runtime_checkable
class Objective(Protocol):
    """What is climbed: `gains.Gains` of weights, `correlations.Correlations` of activations.

    Attributes:
      spec: of the network.
      neighbors: by group, those on whose order its gains depend.
      quadratic: groups whose gains depend on their own order.
    """

    spec: PermutationSpec
    neighbors: dict[str, set[str]]
    quadratic: set[str]

    def of(self, group: str, permutation: Mapping[str, np.ndarray], unsettled: Set[str] = frozenset()) -> np.ndarray:
        """Returns (n, n) what is gained where unit j takes the place i."""
        ...

    def objective(self, permutation: Permutation) -> float:
        """Returns the height."""
        ...

    def better(self, group: str, new: np.ndarray, gain: np.ndarray, permutation: Permutation) -> bool:
        """Returns whether another order of a group gains more than rounding."""
        ...


Counts = tuple[int, int, int]
"""Sweeps, assignments and moves."""


def add(counts: Counts, more: Counts) -> Counts:
    """Returns the sums."""
    return counts[0] + more[0], counts[1] + more[1], counts[2] + more[2]


def best_of(
    gains: Objective,
    draws: np.random.Generator,
    restarts: int,
    settled: bool = False,
    free: set[str] | None = None,
) -> tuple[dict[str, np.ndarray], float, Counts]:
    """Climbs from several starts; returns the best permutation, its objective, and what all of them took.

    Args:
      gains: of the two networks.
      draws: of the shuffles.
      restarts: number of starts, at least 1.
      settled: whether the second network's order says anything.
      free: the groups that may move; None: all.
    """
    nothing = permutations.identity(gains.spec)
    groups = {name: size for name, size in gains.spec.groups.items() if free is None or name in free}
    best, counts = ascend(gains, nothing, set(groups), settled, free)
    objective = gains.objective(best)
    if not settled and objective < gains.objective(nothing):
        best, more = ascend(gains, nothing, set(groups), free=free)
        objective, counts = gains.objective(best), add(counts, more)
    for _ in range(restarts - 1 if groups else 0):
        shaken = list(groups)[draws.integers(len(groups))]
        start = {**best, shaken: draws.permutation(groups[shaken])}
        order, more = ascend(gains, start, gains.neighbors[shaken] & set(groups) or {shaken}, free=free)
        counts = add(counts, more)
        reached = gains.objective(order)
        if reached > objective:
            best, objective = order, reached
    return best, objective, counts


def ascend(
    gains: Objective,
    start: dict[str, np.ndarray],
    waiting: set[str],
    settled: bool = True,
    free: set[str] | None = None,
) -> tuple[dict[str, np.ndarray], Counts]:
    """Climbs from `start`, one group after the other from the network's inputs on, until none gains anything.

    Args:
      gains: of the two networks.
      start: by group, the units of the second network in their order.
      waiting: the groups that are not known to be at their best.
      settled: whether the orders at the start say anything; else a group is first matched by what it shares with groups that
        were matched before it, which takes fewer assignments and reaches more.
      free: the groups that may move; None: all.

    Returns:
      The permutation reached, and what it took.
    """
    permutation, waiting = dict(start), set(waiting)
    free = set(start) if free is None else free
    unsettled = set() if settled else set(free)
    sweeps = assignments = moving = 0
    while waiting:
        sweeps += 1
        for name in front_to_back(gains.spec):
            if name not in waiting:
                continue
            waiting.discard(name)
            unsettled.discard(name)
            if gains.neighbors[name] & unsettled:
                waiting.add(name)
            gain = gains.of(name, permutation, unsettled)
            new = assign(gain)
            assignments += 1
            if gains.better(name, new, gain, permutation):
                permutation[name] = new
                moving += 1
                waiting |= (gains.neighbors[name] | ({name} & gains.quadratic)) & free
    return permutation, (sweeps, assignments, moving)

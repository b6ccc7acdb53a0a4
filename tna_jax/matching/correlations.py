"""What two networks' activations gain by a permutation of units: sums of products, taken once, of every unit with every other."""

import math
from collections.abc import Mapping, Set

import numpy as np

from tna_jax.matching.assignment import assign
from tna_jax.matching.axes import Axis, Concat, Group, Product
from tna_jax.matching.gains import ROUNDING, is_better
from tna_jax.matching.permutations import Permutation, PermutationSpec

PAIRS = 4096
"""Heads are begun with one assignment of units for each pair of them, where there are no more pairs than this."""


class Block:
    """A stretch of an axis of activations that is made of the units of several groups: heads x units of a head."""

    def __init__(self, products: np.ndarray, groups: tuple[str | None, ...], positions: np.ndarray) -> None:
        self.groups, self.sizes = groups, positions.shape
        at = positions.reshape(-1)
        self.products = products[np.ix_(at, at)]
        self.names = {name for name in groups if name is not None}

    def rows(self, permutation: Mapping[str, np.ndarray], but: int | None = None) -> np.ndarray:
        """Which entry of the second network stands at each place, the parts in order, one of them left out."""
        rows = np.zeros(1, int)
        for i, (name, size) in enumerate(zip(self.groups, self.sizes, strict=True)):
            if i != but:
                order = np.arange(size) if name is None else permutation[name]
                rows = (rows[:, None] * size + order[None, :]).reshape(-1)
        return rows

    def objective(self, permutation: Mapping[str, np.ndarray]) -> float:
        """The sum of the products of entries that share a place."""
        return float(self.products[np.arange(len(self.products)), self.rows(permutation)].sum())

    def gain(self, part: int, permutation: Mapping[str, np.ndarray], unsettled: Set[str]) -> np.ndarray:
        """Of the units of one part, (n, n): with the order of the other parts, or where that says nothing the best for each pair."""
        size, others = self.sizes[part], math.prod(self.sizes) // self.sizes[part]
        pairs = self.products.reshape(self.sizes * 2)
        pairs = np.moveaxis(pairs, (part, len(self.sizes) + part), (0, 1)).reshape(size, size, others, others)
        if self.names & unsettled and size * size <= PAIRS:
            places = np.arange(others)
            return np.array([[each[places, assign(each)].sum() for each in row] for row in pairs])
        total: np.ndarray = pairs[:, :, np.arange(others), self.rows(permutation, part)].sum(-1)
        return total


def stretches(axis: Axis) -> list[tuple[tuple[str | None, ...], np.ndarray]]:
    """Returns the stretches of an axis: the groups of the parts of each, and the positions (sizes of the parts) of its entries."""
    if isinstance(axis, Concat):
        starts = np.cumsum([0, *(part.size for part in axis.parts)])
        return [
            (groups, start + at)
            for start, part in zip(starts, axis.parts, strict=False)
            for groups, at in stretches(part)
        ]
    if isinstance(axis, Product):
        result: list[tuple[tuple[str | None, ...], np.ndarray]] = [((), np.zeros((), int))]
        for part in axis.parts:
            result = [
                ((*before, *groups), np.add.outer(start * part.size, at))
                for before, start in result
                for groups, at in stretches(part)
            ]
        return result
    return [((str(axis.name) if isinstance(axis, Group) else None,), np.arange(axis.size))]


class Correlations:
    """The sums of products of two networks' activations; what `ascent` climbs.

    Attributes:
      spec, neighbors, quadratic: as of `gains.Gains`.
      sites: the groups whose units' activations are known.
    """

    def __init__(self, spec: PermutationSpec, products: Mapping[Axis, np.ndarray]) -> None:
        self.spec = spec
        parts = [(array, *stretch) for axis, array in products.items() for stretch in stretches(axis)]
        self.blocks = [Block(*part) for part in parts if any(name is not None for name in part[1])]
        self.around = {name: [block for block in self.blocks if name in block.names] for name in spec.groups}
        self.sites = {name for name, blocks in self.around.items() if blocks}
        self.neighbors = {
            name: set().union(*(block.names for block in blocks)) - {name} for name, blocks in self.around.items()
        }
        self.quadratic = {name for block in self.blocks for name in block.names if block.groups.count(name) > 1}

    def of(self, group: str, permutation: Mapping[str, np.ndarray], unsettled: Set[str] = frozenset()) -> np.ndarray:
        """Returns (n, n) float64: the sum of products of the first network's unit i and the second's unit j, the other groups permuted.

        Args:
          group: its name.
          permutation: of all groups.
          unsettled: groups whose order says nothing yet: units of heads that are to be matched themselves.
        """
        total = np.zeros((self.spec.groups[group],) * 2)
        for block in self.around[group]:
            for part, name in enumerate(block.groups):
                if name == group:
                    total += block.gain(part, permutation, unsettled)
        return total

    def objective(self, permutation: Permutation) -> float:
        """Returns the sum of the products of the units that share a place."""
        return sum(block.objective(permutation) for block in self.blocks)

    def better(self, group: str, new: np.ndarray, gain: np.ndarray, permutation: Permutation) -> bool:
        """Returns whether another order of a group gains more than rounding."""
        if group not in self.quadratic:
            return is_better(permutation[group], new, gain)
        before, after = (
            sum(block.objective({**permutation, group: order}) for block in self.around[group])
            for order in (permutation[group], new)
        )
        return after > before + ROUNDING * max(abs(before), abs(after))

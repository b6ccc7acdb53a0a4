"""What two networks' weights gain by a permutation of units, brought up to date where units have moved."""

import functools
import math
from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

import numpy as np

from tna_jax import trees
from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Concat, Fixed, Group, Product
from tna_jax.matching.magnitudes import widened
from tna_jax.matching.permutations import Permutation, PermutationSpec
from tna_jax.trees import KeyPath

Leaves = Mapping[KeyPath, np.ndarray]
"""By path, on the host, as `widened` makes them; the real and the imaginary parts of a complex leaf on a last axis of its own."""


def real_leaves(tree: trees.Tree) -> dict[KeyPath, np.ndarray]:
    """Returns the leaves of parameters as real numbers: the inner product of these is the real part of that of complex ones."""
    leaves = {path: np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}
    return {
        path: widened(np.stack([leaf.real, leaf.imag], -1) if np.iscomplexobj(leaf) else leaf)
        for path, leaf in leaves.items()
    }


class Block(NamedTuple):
    """A part of a parameter of both networks each axis of which holds the units of one group, in order, or of none."""

    a: np.ndarray
    """Of the first network, as `widened` makes it."""
    b: np.ndarray
    groups: tuple[str | None, ...]

    def inner_product(self, permutation: Permutation) -> float:
        """The inner product of the first network's entries and the second's permuted ones; sums of rows are added in float64."""
        b = self.b
        for i, name in enumerate(self.groups):
            if name is not None and (permutation[name] != np.arange(len(permutation[name]))).any():
                b = b.take(permutation[name], axis=i)
        return float(np.einsum("...i,...i->...", np.atleast_1d(self.a), np.atleast_1d(b)).sum(dtype=np.float64))


def blocks(a: np.ndarray, b: np.ndarray, leaf_axes: tuple[Axis, ...]) -> Iterator[Block]:
    """Cuts a parameter where axes are made of others: end to end (`Concat`) or flattened into one (`Product`).

    Args:
      a, b: one leaf of both networks.
      leaf_axes: what its axes hold; an axis more, of parts of complex numbers, holds no group.
    """
    leaf_axes = (*leaf_axes, *map(Fixed, a.shape[len(leaf_axes) :]))
    for i, axis in enumerate(leaf_axes):
        before, after = leaf_axes[:i], leaf_axes[i + 1 :]
        if isinstance(axis, Product):
            shape = (*a.shape[:i], *(part.size for part in axis.parts), *a.shape[i + 1 :])
            yield from blocks(a.reshape(shape), b.reshape(shape), (*before, *axis.parts, *after))
            return
        if isinstance(axis, Concat):
            cuts = np.cumsum([part.size for part in axis.parts[:-1]])
            for part, p, q in zip(axis.parts, np.split(a, cuts, i), np.split(b, cuts, i), strict=True):
                p, q = (widened(x) if x.dtype.kind == "f" else x for x in (p, q))  # a part may be of another size
                yield from blocks(p, q, (*before, part, *after))
            return
    yield Block(a, b, tuple(str(axis.name) if isinstance(axis, Group) else None for axis in leaf_axes))


MANY = 0.5
"""Where more than this share of the rows have moved, all are multiplied anew: it takes one copy of them instead of three."""


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the inner products (units, units) of the columns of two matrices (rows, units)."""
    result: np.ndarray = a.T @ b
    return result


SLICES = 64
"""Up to so many products of slices are cheaper than one of matrices that must be copied together for it."""


class _Term:
    """One axis of a block: what its group gains there.

    Rows are the positions on all other axes. Where few units there have moved, the difference of the second network's rows, old
    and new, gives the difference of the gains: rows that stay cost nothing.
    """

    def __init__(self, block: Block, axis: int) -> None:
        self.block, self.axis = block, axis
        self.others = [name for i, name in enumerate(block.groups) if i != axis]
        self.shape = [size for i, size in enumerate(block.a.shape) if i != axis]
        self.names = {name for name in self.others if name is not None}
        self.held: tuple[np.ndarray, ...] | None = None
        self.rows = np.zeros(0, int)
        self.whole: np.ndarray | None = None

    @functools.cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Both networks' entries (rows, units)."""
        a, b = (
            np.moveaxis(leaf, self.axis, -1).reshape(-1, leaf.shape[self.axis]) for leaf in (self.block.a, self.block.b)
        )
        return a, b

    def change(self, permutation: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The gains (units, units) float32 less those of the last call, which begin at 0; None where nothing has moved."""
        orders = tuple(permutation[name] for name in self.others if name is not None)
        if self.held is not None and all(
            old is new or np.array_equal(old, new) for old, new in zip(self.held, orders, strict=True)
        ):
            return None
        before, rows, self.held = self.rows, self._rows(permutation), orders
        self.rows = rows
        moved = np.flatnonzero(rows != before) if self.whole is not None else rows
        if self.whole is not None and len(moved) < MANY * len(rows):
            a, b = self.matrices
            change = product(a[moved], b[rows[moved]] - b[before[moved]])
            self.whole = self.whole + change
            return change
        whole = self._whole(orders, rows)
        change = whole if self.whole is None else whole - self.whole
        self.whole = whole
        return change

    def _whole(self, orders: tuple[np.ndarray, ...], rows: np.ndarray) -> np.ndarray:
        """The gains (units, units) float32, of all rows.

        A kernel of a convolution is a stack of matrices, as it lies in memory: their products are summed, and nothing is copied
        together.
        """
        fixed = [i for i, name in enumerate(self.block.groups) if name is None]
        slices = math.prod(self.block.a.shape[i] for i in fixed)
        if len(orders) != 1 or "matrices" in self.__dict__ or slices > SLICES or fixed != list(range(len(fixed))):
            a, b = self.matrices
            return product(a, b[rows] if orders else b)
        a, b = (leaf.reshape(-1, *leaf.shape[len(fixed) :]) for leaf in (self.block.a, self.block.b))
        (order,), own_first = orders, self.axis == len(fixed)
        units = a.shape[1 if own_first else 2]
        whole = np.zeros((units, units), np.result_type(a, b))
        for p, q in zip(a, b, strict=True):
            whole += product(p.T, q.take(order, axis=1).T) if own_first else product(p, q.take(order, axis=0))
        return whole

    def trace(self, order: np.ndarray, permutation: Mapping[str, np.ndarray]) -> float | None:
        """The block's inner product, read off the gains; None where the other groups' orders are not those of the last call.

        Args:
          order: of the term's own group.
          permutation: of all groups.
        """
        orders = tuple(permutation[name] for name in self.others if name is not None)
        if self.whole is None or self.held is None or not all(map(np.array_equal, self.held, orders)):
            return None
        return float(self.whole[np.arange(len(order)), order].sum(dtype=np.float64))

    def _rows(self, permutation: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = np.zeros(1, int)
        for name, size in zip(self.others, self.shape, strict=True):
            order = np.arange(size) if name is None else permutation[name]
            rows = (rows[:, None] * size + order[None, :]).reshape(-1)
        return rows


class Gains:
    """The weights of two networks on the host, and what they gain by a permutation.

    Attributes:
      neighbors: by group, those that share a parameter with it.
      quadratic: groups that stand on two axes of one parameter, whose gains depend on their own order.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        a: Leaves,
        b: Leaves,
        parts: list[Block] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.spec = spec
        self.blocks = parts or [block for path, leaf in spec.params.items() for block in blocks(a[path], b[path], leaf)]
        groups = spec.groups if sizes is None else sizes
        self.terms: dict[str, list[_Term]] = {name: [] for name in groups}
        self.around: dict[str, list[Block]] = {name: [] for name in groups}
        self.neighbors: dict[str, set[str]] = {name: set() for name in groups}
        self.quadratic: set[str] = set()
        self.of_block: list[list[tuple[str, _Term]]] = []
        for block in self.blocks:
            names = [name for name in block.groups if name is not None]
            for name in set(names):
                self.around[name].append(block)
                self.neighbors[name] |= set(names) - {name}
                if names.count(name) > 1:
                    self.quadratic.add(name)
            of_block = [(group, _Term(block, axis)) for axis, group in enumerate(block.groups) if group is not None]
            for group, term in of_block:
                self.terms[group].append(term)
            self.of_block.append(of_block)
        self.totals = {name: np.zeros((size, size)) for name, size in groups.items()}

    def of(self, group: str, permutation: Mapping[str, np.ndarray], unsettled: Set[str] = frozenset()) -> np.ndarray:
        """Returns (n, n) float64: the inner product of the first network's unit i with the second's unit j, the other groups permuted.

        Where a parameter has the group on two axes, the other one is held: a linearization.

        Args:
          group: its name.
          permutation: of all groups.
          unsettled: groups whose order says nothing yet; what is shared with them is left out, unless nothing else is left.
        """
        total = self.totals[group]
        known = [term for term in self.terms[group] if not unsettled & term.names]
        for term in known or self.terms[group]:
            change = term.change(permutation)
            if change is not None:
                total += change
        return total

    def objective(self, permutation: Permutation) -> float:
        """Returns the inner product of both networks' weights, to float32's rounding: of most blocks it stands in gains at hand."""
        total = 0.0
        for block, terms in zip(self.blocks, self.of_block, strict=True):
            traces = (term.trace(permutation[group], permutation) for group, term in terms)
            at_hand = next((value for value in traces if value is not None), None)
            total += block.inner_product(permutation) if at_hand is None else at_hand
        return total

    def better(self, group: str, new: np.ndarray, gain: np.ndarray, permutation: Permutation) -> bool:
        """Returns whether another order of a group gains more than rounding.

        Args:
          group: its name.
          new: the order.
          gain: of the group.
          permutation: of all groups, the old order of this one among them.
        """
        if group not in self.quadratic:
            return is_better(permutation[group], new, gain)
        before, after = (
            sum(block.inner_product({**permutation, group: order}) for block in self.around[group])
            for order in (permutation[group], new)
        )
        return after > before + ROUNDING * max(abs(before), abs(after))


ROUNDING = 1e-6


def is_better(old: np.ndarray, new: np.ndarray, gain: np.ndarray) -> bool:
    """Returns whether an order of units gains more than another one, beyond rounding.

    Args:
      old, new: (n,) ints.
      gain: (n, n)
    """
    if np.array_equal(old, new):
        return False
    rows = np.arange(len(old))
    before, after = (float(gain[rows, order].sum()) for order in (old, new))
    return after > before + ROUNDING * max(abs(before), abs(after))


def front_to_back(spec: PermutationSpec) -> list[str]:
    """Returns the groups in the order in which the network first multiplies their units with weights; those without such a place last."""
    first: dict[str, int] = {}
    for site in spec.sites:
        for name in sorted(axes.names(site.axis)):
            first.setdefault(name, site.contraction)
    last = len(first) and max(first.values()) + 1
    return sorted(spec.groups, key=lambda name: first.get(name, last))

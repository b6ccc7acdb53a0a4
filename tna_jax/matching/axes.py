"""What is known of one axis of an array under permutations of hidden units, as small expressions.

An axis is `Fixed` (its positions have a meaning: examples, pixels, classes), `Constant` (all its entries are equal, so any
permutation leaves it as it is), or a `Group` of units that may be permuted; or it is made of such axes: end to end
(`Concat`), or as the row-major product of several (`Product`, after a flattening).
"""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Positions that must stay where they are."""

    size: int


@dataclasses.dataclass(frozen=True)
class Constant:
    """Equal entries."""

    size: int


@dataclasses.dataclass(frozen=True)
class Group:
    """Units that may be permuted, all axes of one group together."""

    size: int
    name: int | str


@dataclasses.dataclass(frozen=True)
class Concat:
    """Axes end to end."""

    parts: tuple["Axis", ...]

    @property
    def size(self) -> int:
        """The sum of the parts' sizes."""
        return sum(part.size for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Product:
    """Axes flattened into one, the last one running fastest."""

    parts: tuple["Axis", ...]

    @property
    def size(self) -> int:
        """The product of the parts' sizes."""
        return math.prod(part.size for part in self.parts)


Axis = Fixed | Constant | Group | Concat | Product


def concat(parts: list[Axis]) -> Axis:
    """Puts the parts end to end, in normal form: nested and neighboring parts joined, k equal ones as a product."""
    flat: list[Axis] = []
    for part in (inner for outer in parts for inner in (outer.parts if isinstance(outer, Concat) else (outer,))):
        if part.size == 0:
            continue
        if flat and isinstance(part, Fixed) and isinstance(flat[-1], Fixed):  # two constants are not one
            part = Fixed(flat.pop().size + part.size)
        flat.append(part)
    if not flat:
        return Constant(0)
    if len(flat) > 1 and all(part == flat[0] for part in flat):
        return product([Fixed(len(flat)), flat[0]])
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def product(parts: list[Axis]) -> Axis:
    """Builds the product in normal form: nested and neighboring parts joined, parts of size 1 left out."""
    flat: list[Axis] = []
    for part in (inner for outer in parts for inner in (outer.parts if isinstance(outer, Product) else (outer,))):
        if part.size == 1:
            continue
        if flat and isinstance(part, Fixed | Constant) and type(flat[-1]) is type(part):
            part = type(part)(flat.pop().size * part.size)
        flat.append(part)
    if not flat:
        return Fixed(1)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def reverse(axis: Axis) -> Axis:
    """Returns an axis without groups, read from its end: its parts change places."""
    if isinstance(axis, Concat):
        return concat([reverse(part) for part in axis.parts[::-1]])
    if isinstance(axis, Product):
        return product([reverse(part) for part in axis.parts])
    return axis


def groups(axis: Axis) -> list[Group]:
    """Returns the groups of an axis, in order, with repetitions."""
    if isinstance(axis, Concat | Product):
        return [group for part in axis.parts for group in groups(part)]
    return [axis] if isinstance(axis, Group) else []


def names(axis: Axis) -> set[str]:
    """Returns the names of the groups of an axis."""
    return {str(group.name) for group in groups(axis)}


def indices(axis: Axis, permutation: dict[str, np.ndarray]) -> np.ndarray:
    """Returns (size,) ints: where the entries of the permuted axis come from; groups without a permutation stay."""
    if isinstance(axis, Group):
        return permutation.get(str(axis.name), np.arange(axis.size))
    if isinstance(axis, Concat):
        starts = np.cumsum([0, *(part.size for part in axis.parts)])
        return np.concatenate(
            [start + indices(part, permutation) for start, part in zip(starts, axis.parts, strict=False)]
        )
    if isinstance(axis, Product):
        places = np.zeros(1, int)
        for part in axis.parts:
            places = (places[:, None] * part.size + indices(part, permutation)[None, :]).reshape(-1)
        return places
    return np.arange(axis.size)


def units(axis: Axis) -> list[tuple[str, int]]:
    """Returns whose units the entries of an axis are, (name of the group, which of its units); `""` for entries without a group.

    Of a product with several groups, such as (heads, units of a head), the last one counts: what is said of a unit then holds
    in every head.
    """
    if isinstance(axis, Group):
        return [(str(axis.name), i) for i in range(axis.size)]
    if isinstance(axis, Concat):
        return [unit for part in axis.parts for unit in units(part)]
    if isinstance(axis, Product):
        at = max((i for i, part in enumerate(axis.parts) if groups(part)), default=-1)
        if at >= 0:
            inner = math.prod(part.size for part in axis.parts[at + 1 :])
            outer = math.prod(part.size for part in axis.parts[:at])
            return [unit for unit in units(axis.parts[at]) for _ in range(inner)] * outer
    return [("", i) for i in range(axis.size)]


def views(array: Any, axis: Axis, group: str) -> list[Any]:
    """Returns the entries that a group orders: for each place where it occurs, the array as (units of the group, everything else).

    Args:
      array: (size of the axis, R), NumPy or JAX.
      axis: the expression of the first axis.
      group: its name.
    """
    if isinstance(axis, Group):
        return [array] if axis.name == group else []
    if group not in names(axis):
        return []
    parts, start, major = [], 0, 1
    for part in axis.parts:  # type: ignore[union-attr]
        if isinstance(axis, Concat):
            inner = array[start : start + part.size]
        else:
            inner = array.reshape(major, part.size, -1).swapaxes(0, 1).reshape(part.size, -1)
        start, major = start + part.size, major * part.size
        parts += views(inner, part, group)
    return parts

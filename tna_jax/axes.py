"""What is known of one axis of an array under permutations of hidden units: small expressions, and their unification.

An axis is `Fixed` (its positions have a meaning: examples, pixels, classes), `Wild` (all its entries are equal, so any
permutation leaves it as it is), or a `Group` of units that may be permuted; or it is made of such axes: end to end
(`Concat`), or as the row-major product of several (`Product`, after a flattening). Unifying two axes makes both the same
expression: a group may become another one, be cut into parts, or be fixed. Fixing is always right; it only gives up symmetries.
"""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Positions that must stay where they are."""

    size: int


@dataclasses.dataclass(frozen=True)
class Wild:
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


Axis = Fixed | Wild | Group | Concat | Product


def concat(parts: list[Axis]) -> Axis:
    """The parts end to end in normal form: nested and neighbouring parts joined, k equal ones as a product."""
    flat: list[Axis] = []
    for part in (inner for outer in parts for inner in (outer.parts if isinstance(outer, Concat) else (outer,))):
        if part.size == 0:
            continue
        if flat and isinstance(part, Fixed | Wild) and type(flat[-1]) is type(part):
            part = type(part)(flat.pop().size + part.size)
        flat.append(part)
    if len(flat) > 1 and all(part == flat[0] for part in flat):
        return product([Fixed(len(flat)), flat[0]])
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def product(parts: list[Axis]) -> Axis:
    """The product in normal form: nested and neighbouring parts joined, parts of size 1 left out."""
    flat: list[Axis] = []
    for part in (inner for outer in parts for inner in (outer.parts if isinstance(outer, Product) else (outer,))):
        if part.size == 1:
            continue
        if flat and isinstance(part, Fixed | Wild) and type(flat[-1]) is type(part):
            part = type(part)(flat.pop().size * part.size)
        flat.append(part)
    if not flat:
        return Fixed(1)
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def groups(axis: Axis) -> list[Group]:
    """The groups of an axis, in order, with repetitions."""
    if isinstance(axis, Concat | Product):
        return [group for part in axis.parts for group in groups(part)]
    return [axis] if isinstance(axis, Group) else []


def names(axis: Axis) -> set[str]:
    """The names of the groups of an axis."""
    return {str(group.name) for group in groups(axis)}


def indices(axis: Axis, permutation: dict[str, np.ndarray]) -> np.ndarray:
    """(size,) int: where the entries of the permuted axis come from; groups without a permutation stay."""
    if isinstance(axis, Group):
        return permutation.get(str(axis.name), np.arange(axis.size))
    if isinstance(axis, Concat):
        starts = np.cumsum([0, *(part.size for part in axis.parts)])
        return np.concatenate(
            [start + indices(part, permutation) for start, part in zip(starts, axis.parts, strict=False)]
        )
    if isinstance(axis, Product):
        found = np.zeros(1, int)
        for part in axis.parts:
            found = (found[:, None] * part.size + indices(part, permutation)[None, :]).reshape(-1)
        return found
    return np.arange(axis.size)


def views(array, axis: Axis, group: str) -> list:
    """The entries that a group orders: for each place where it occurs, the array as (units of the group, everything else).

    Args:
      array: (size of the axis, R), NumPy or JAX.
      axis: the expression of the first axis.
      group: its name.
    """
    if isinstance(axis, Group):
        return [array] if axis.name == group else []
    if group not in names(axis):
        return []
    found, start, major = [], 0, 1
    for part in axis.parts:  # type: ignore[union-attr]
        if isinstance(axis, Concat):
            inner = array[start : start + part.size]
        else:
            inner = array.reshape(major, part.size, -1).swapaxes(0, 1).reshape(part.size, -1)
        start, major = start + part.size, major * part.size
        found += views(inner, part, group)
    return found


class Unifier:
    """What was found out so far about the groups of one network."""

    def __init__(self) -> None:
        self.bound: dict[int | str, Axis] = {}
        self.made = 0

    def new(self, size: int) -> Axis:
        """A fresh group; an axis of size 1 is fixed."""
        self.made += 1
        return Group(size, self.made) if size > 1 else Fixed(size)

    def resolve(self, axis: Axis) -> Axis:
        """The axis as it is known now, in normal form."""
        if isinstance(axis, Group):
            if axis.name in self.bound:
                self.bound[axis.name] = self.resolve(self.bound[axis.name])
                return self.bound[axis.name]
        elif isinstance(axis, Concat):
            return concat([self.resolve(part) for part in axis.parts])
        elif isinstance(axis, Product):
            return product([self.resolve(part) for part in axis.parts])
        return axis

    def fix(self, axis: Axis) -> Axis:
        """No unit of this axis may move from now on."""
        axis = self.resolve(axis)
        for group in groups(axis):
            self.bound[group.name] = Fixed(group.size)
        return axis if isinstance(axis, Wild) else Fixed(axis.size)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Makes two axes of one size the same; equal entries (`Wild`) ask for nothing."""
        a, b = self.resolve(a), self.resolve(b)
        assert a.size == b.size, (a, b)
        if a == b or isinstance(b, Wild):
            return a
        if isinstance(a, Wild):
            return b
        if isinstance(a, Fixed) or isinstance(b, Fixed):
            self.fix(a)
            self.fix(b)
            return Fixed(a.size)
        if isinstance(a, Group) or isinstance(b, Group):
            group, other = (a, b) if isinstance(a, Group) else (b, a)
            self.bound[group.name] = self._ordered(other)  # type: ignore[union-attr]
            return self.resolve(group)
        if isinstance(a, Product) and isinstance(b, Product):
            return self._unify_products(a, b)
        return self._unify_end_to_end(a, b)

    def _ordered(self, axis: Axis) -> Axis:
        """The axis with a fresh group for every stretch of equal entries: another array has different ones there."""
        if isinstance(axis, Wild):
            return self.new(axis.size)
        if isinstance(axis, Concat | Product):
            return type(axis)(tuple(self._ordered(part) for part in axis.parts))
        return axis

    def _unify_products(self, a: Product, b: Product) -> Axis:
        left, right, done = list(a.parts), list(b.parts), []
        while left and right:
            p, q = self.resolve(left.pop()), self.resolve(right.pop())
            if isinstance(p, Product) or isinstance(q, Product):
                left += p.parts if isinstance(p, Product) else (p,)
                right += q.parts if isinstance(q, Product) else (q,)
                continue
            small = min(p.size, q.size)
            if max(p.size, q.size) % small:
                self.fix(a)
                self.fix(b)
                return Fixed(a.size)
            if p.size > small:
                major, p = self.factor(p, small)
                left.append(major)
            if q.size > small:
                major, q = self.factor(q, small)
                right.append(major)
            done.append(self.unify(p, q))
        return self.resolve(product(done[::-1]))

    def _unify_end_to_end(self, a: Axis, b: Axis) -> Axis:
        left, right = (list[Axis](x.parts[::-1] if isinstance(x, Concat) else [x]) for x in (a, b))
        done = []
        while left and right:
            p, q = self.resolve(left.pop()), self.resolve(right.pop())
            small = min(p.size, q.size)
            if p.size > small:
                p, rest = self.cut(p, small)
                left.append(rest)
            if q.size > small:
                q, rest = self.cut(q, small)
                right.append(rest)
            done.append(self.unify(p, q))
        return self.resolve(concat(done))

    def factor(self, axis: Axis, minor: int) -> tuple[Axis, Axis]:
        """The axis as a product of two, the second of size `minor`, which divides the axis."""
        axis = self.resolve(axis)
        parts: tuple[Axis, Axis]
        if isinstance(axis, Group):
            parts = self.new(axis.size // minor), self.new(minor)
            self.bound[axis.name] = product(list(parts))
            return parts
        if isinstance(axis, Product):
            last, rest = axis.parts[-1], product(list(axis.parts[:-1]))
            if last.size == minor:
                return rest, last
            if last.size > minor and last.size % minor == 0:
                major, small = self.factor(last, minor)
                return product([rest, major]), small
            if last.size < minor and minor % last.size == 0 and rest.size % (minor // last.size) == 0:
                major, small = self.factor(rest, minor // last.size)
                return major, product([small, last])
        kind = Wild if isinstance(axis, Wild) else Fixed
        self.fix(axis)
        return kind(axis.size // minor), kind(minor)

    def cut(self, axis: Axis, first: int) -> tuple[Axis, Axis]:
        """The axis as two end to end, the first of size `first`, 0 < `first` < size."""
        axis = self.resolve(axis)
        parts: tuple[Axis, Axis]
        if isinstance(axis, Fixed | Wild):
            return type(axis)(first), type(axis)(axis.size - first)
        if isinstance(axis, Group):
            parts = self.new(first), self.new(axis.size - first)
            self.bound[axis.name] = concat(list(parts))
            return parts
        if isinstance(axis, Concat):
            head, rest = axis.parts[0], concat(list(axis.parts[1:]))
            if first == head.size:
                return head, rest
            if first < head.size:
                head, more = self.cut(head, first)
                return head, concat([more, rest])
            more, rest = self.cut(rest, first - head.size)
            return concat([head, more]), rest
        if not isinstance(axis.parts[0], Wild):
            self.fix(axis.parts[0])  # copies end to end are in their order
        copies, one = axis.parts[0].size, self.resolve(product(list(axis.parts[1:])))
        whole, part = divmod(first, one.size)
        if not part:
            return product([Fixed(whole), one]), product([Fixed(copies - whole), one])
        head, rest = self.cut(one, part)
        one = self.resolve(one)
        return concat([*[one] * whole, head]), concat([rest, *[one] * (copies - whole - 1)])

"""Unifies axes: makes two of them the same expression.

A group may become another one, be cut into parts, or be fixed. Fixing is always right; it only gives up symmetries.
"""

from typing import Any

from tna_jax.matching.axes import Axis, Concat, Constant, Fixed, Group, Product, concat, groups, product


class Unifier:
    """Holds what is known so far about the groups of one network.

    Attributes:
      operation: what is being looked at, noted as the reason of whatever is fixed from now on.
    """

    def __init__(self) -> None:
        self.bound: dict[int | str, Axis] = {}
        self.links: dict[int | str, tuple[Axis, Any]] = {}
        self.operation: Any = None
        self.count = 0

    def new(self, size: int) -> Axis:
        """Returns a fresh group; an axis of size 1 is fixed."""
        self.count += 1
        size = int(size)
        return Group(size, self.count) if size > 1 else Fixed(size)

    def resolve(self, axis: Axis) -> Axis:
        """Returns the axis as it is known now, in normal form."""
        if isinstance(axis, Group):
            if axis.name in self.bound:
                self.bound[axis.name] = self.resolve(self.bound[axis.name])
                return self.bound[axis.name]
        elif isinstance(axis, Concat):
            return concat([self.resolve(part) for part in axis.parts])
        elif isinstance(axis, Product):
            return product([self.resolve(part) for part in axis.parts])
        return axis

    def _bind(self, group: Group, axis: Axis) -> None:
        self.bound[group.name] = axis
        self.links[group.name] = axis, self.operation

    def reasons(self, axis: Axis) -> list[Any]:
        """Returns what was being looked at when the axis, or parts of it, were fixed; each once, in order."""
        if isinstance(axis, Group) and axis.name in self.links:
            link, operation = self.links[axis.name]
            return [operation] if isinstance(link, Fixed) else self.reasons(link)
        if isinstance(axis, Concat | Product):
            return list(dict.fromkeys(reason for part in axis.parts for reason in self.reasons(part)))
        return []

    def fix(self, axis: Axis) -> Axis:
        """Fixes an axis: none of its units may move from now on."""
        axis = self.resolve(axis)
        for group in groups(axis):
            self._bind(group, Fixed(group.size))
        return axis if isinstance(axis, Constant) else Fixed(axis.size)

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Makes two axes of one size the same; equal entries (`Constant`) ask for nothing."""
        a, b = self.resolve(a), self.resolve(b)
        assert a.size == b.size, (a, b)
        if a == b or isinstance(b, Constant):
            return a
        if isinstance(a, Constant):
            return b
        if isinstance(a, Fixed) or isinstance(b, Fixed):
            self.fix(a)
            self.fix(b)
            return Fixed(a.size)
        if isinstance(a, Group) or isinstance(b, Group):
            group, other = (a, b) if isinstance(a, Group) else (b, a)
            assert isinstance(group, Group)
            self._bind(group, self._ordered(other))
            return self.resolve(group)
        if isinstance(a, Product) and isinstance(b, Product):
            return self._unify_products(a, b)
        return self._unify_end_to_end(a, b)

    def _ordered(self, axis: Axis) -> Axis:
        """The axis with a fresh group for every stretch of equal entries: another array has different ones there."""
        if isinstance(axis, Constant):
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
        """Takes the axis apart as a product of two, the second of size `minor`, which divides the axis."""
        axis = self.resolve(axis)
        parts: tuple[Axis, Axis]
        if isinstance(axis, Group):
            parts = self.new(axis.size // minor), self.new(minor)
            self._bind(axis, product(list(parts)))
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
        kind = Constant if isinstance(axis, Constant) else Fixed
        self.fix(axis)
        return kind(axis.size // minor), kind(minor)

    def cut(self, axis: Axis, first: int) -> tuple[Axis, Axis]:
        """Takes the axis apart as two end to end, the first of size `first`, 0 < `first` < size."""
        axis = self.resolve(axis)
        parts: tuple[Axis, Axis]
        if isinstance(axis, Fixed | Constant):
            return type(axis)(first), type(axis)(axis.size - first)
        if isinstance(axis, Group):
            parts = self.new(first), self.new(axis.size - first)
            self._bind(axis, concat(list(parts)))
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
        if not isinstance(axis.parts[0], Constant):
            self.fix(axis.parts[0])  # copies end to end are in their order
        copies, one = axis.parts[0].size, self.resolve(product(list(axis.parts[1:])))
        whole, part = divmod(first, one.size)
        if not part:
            return product([Fixed(whole), one]), product([Fixed(copies - whole), one])
        head, rest = self.cut(one, part)
        one = self.resolve(one)
        return concat([*[one] * whole, head]), concat([rest, *[one] * (copies - whole - 1)])

"""Which axes of a network's parameters are the same hidden units: its program is walked, operation by operation.

Every value carries one `Axis` for each of its dimensions (`tna_jax.matching.values`). The rules stand in a table, one for each
primitive (`tna_jax.matching.operations`); here they are applied.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from tna_jax.matching import axes, jaxprs, values
from tna_jax.matching.axes import Axis, Fixed
from tna_jax.matching.operations import OPERATIONS, ties
from tna_jax.matching.unification import Unifier
from tna_jax.matching.values import AxisInfo, Positions


class MatmulSite(NamedTuple):
    """A place where activations meet weights: an axis over which a matrix product or convolution sums."""

    contraction: int
    """Number of the operation, counted along the walk."""
    operand: int
    dimension: int
    axis: Axis
    operand_axes: tuple[Axis, ...] = ()
    """All axes of the activations, this one among them."""


class AxisPropagation:
    """Applies the rules to one `Unifier`.

    Attributes:
      unifier: what is known of the groups.
      sites: where activations meet weights, outside loops and branches.
      contractions: number of matrix products and convolutions up to here, outside loops and branches.
      idle: ids of equations whose results do not matter (`jaxprs.idle`): they tie and fix nothing.
      strangers: names of the operations without a rule that hidden units reached.
    """

    def __init__(self, unifier: Unifier, idle: Collection[int] = ()) -> None:
        self.unifier = unifier
        self.idle = idle
        self.sites: list[MatmulSite] = []
        self.contractions = 0
        self.strangers: set[str] = set()
        self.depth = 0

    def rule(self, equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
        """Returns what is known of the outputs of one operation."""
        self.unifier.operation = equation
        if id(equation) in self.idle:
            self.contractions += equation.primitive.name in jaxprs.CONTRACTIONS and not self.depth
            return [values.uniform(getattr(variable.aval, "shape", ())) for variable in equation.outvars]
        inputs = [self.resolved(value) for value in inputs]
        known = OPERATIONS.get(equation.primitive.name)
        kept = known is not None and known.positions == "kept" and _alone(inputs[0].positions)
        if known is None or not (kept or known.positions == "read"):
            inputs = [self.plain(value) for value in inputs]
        result = self.unknown(equation, inputs) if known is None else known.rule(self, equation, inputs)
        outputs: Sequence[Any] = result if isinstance(result, list) else [result]
        data = any(value.data for value in inputs)
        infos = [value if isinstance(value, AxisInfo) else AxisInfo(value) for value in outputs]
        if kept and infos[0].positions is None and known is not None:
            infos[0] = infos[0]._replace(positions=inputs[0].positions)
        differing = ties.untied(equation, inputs) if len(infos) == 1 else ()
        return [self.resolved(info)._replace(data=data, untied=differing) for info in infos]

    def run(self, closed: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
        """Walks a closed jaxpr that an operation holds."""
        operation = self.unifier.operation
        consts = [values.constant(value) for value in closed.consts]
        outputs = jaxprs.eval_jaxpr_with(closed.jaxpr, consts, inputs, self.rule, values.constant)
        self.unifier.operation = operation
        return [self.plain(value) for value in outputs]

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Within it no sites are gathered: what runs in a loop or branch cannot be looked at from outside."""
        self.depth += 1
        yield
        self.depth -= 1

    def unify(self, a: Axis, b: Axis) -> Axis:
        """Makes two axes the same."""
        return self.unifier.unify(a, b)

    def fix(self, axis: Axis) -> Axis:
        """Fixes an axis; equal entries stay what they are."""
        return self.unifier.fix(axis)

    def join(self, one: AxisInfo, other: AxisInfo) -> AxisInfo:
        """Returns what is known of an array that is one or the other."""
        one, other = self.plain(one), self.plain(other)
        joined = tuple(self.unify(p, q) for p, q in zip(one.axes, other.axes, strict=True))
        return AxisInfo(joined, one.data or other.data)

    def plain(self, value: AxisInfo) -> AxisInfo:
        """Returns what is known of an array whose numbers are computed with: positions on a fixed axis."""
        if value.positions is None:
            return value
        for space in value.positions.spaces:
            if space is not None:
                self.fix(space)
        return self.resolved(value._replace(positions=None))

    def resolved(self, value: AxisInfo) -> AxisInfo:
        """Returns the same with all axes as they are known now."""
        resolve, known = self.unifier.resolve, value.positions
        if known is not None:
            spaces = tuple(None if space is None else resolve(space) for space in known.spaces)
            known = (
                None
                if all(space is None or not axes.groups(space) for space in spaces)
                else known._replace(spaces=spaces)
            )
        return value._replace(axes=tuple(map(resolve, value.axes)), positions=known)

    def fixed(self, equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
        """Fixes the axes of all inputs, and returns fixed ones for the outputs: right for every function."""
        for axis in (axis for value in inputs for axis in value.axes):
            self.fix(axis)
        return [tuple(map(Fixed, getattr(variable.aval, "shape", ()))) for variable in equation.outvars]

    def unknown(self, equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
        """Does as `fixed`; notes the operation by name if hidden units reach it."""
        if any(axes.groups(axis) for value in inputs for axis in value.axes):
            self.strangers.add(equation.primitive.name)
        return self.fixed(equation, inputs)

    def contraction(self, inputs: list[AxisInfo], summed: Sequence[Sequence[int]]) -> None:
        """Counts a matrix product or convolution, and notes the sums of data over weights."""
        if self.depth:
            return
        data = [value.data for value in inputs]
        if data.count(True) == 1:
            operand = data.index(True)
            around = inputs[operand].axes
            self.sites += [MatmulSite(self.contractions, operand, i, around[i], around) for i in summed[operand]]
        self.contractions += 1


def _alone(positions: Positions | None) -> bool:
    return positions is not None and len(positions.spaces) == 1

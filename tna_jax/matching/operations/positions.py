"""Integers that are positions on an axis: where they come from, and the few operations that keep them so.

`table[x.argmax(-1)]`, `one_hot(x.argmax(-1), n)`, `jnp.diagonal` and `jnp.eye` treat all units alike: the integer says which
unit is meant, and where units are renamed it is renamed as well. Everything else fixes the axis that is counted.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from tna_jax.matching.axes import Constant, Fixed
from tna_jax.matching.operations.elementwise import same_axes
from tna_jax.matching.operations.table import Outputs, operation
from tna_jax.matching.values import AxisInfo, Positions, uniform

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Positions"


@operation(
    "argmax", "argmin", family=FAMILY, law="pass where the result is compared with positions or looks up a table"
)
def argmax(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns positions on the axis that is searched."""
    (at,) = equation.params["axes"]
    rest = tuple(axis for i, axis in enumerate(inputs[0].axes) if i != at)
    return AxisInfo(rest, positions=Positions((inputs[0].axes[at],), sound=inputs[0].differs(at)))


@operation("iota", family=FAMILY, law="positions of an axis of their own")
def iota(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns positions of an axis along the same axis: permuted and renamed alike, they are as they were."""
    shape, counted = equation.params["shape"], equation.params["dimension"]
    axis = walk.unifier.new(shape[counted])
    return uniform(shape)._replace(
        axes=tuple(axis if i == counted else Constant(size) if size != 1 else Fixed(1) for i, size in enumerate(shape)),
        positions=Positions((axis,)),
    )


def _single(value: AxisInfo) -> Positions | None:
    known = value.positions
    return known if known is not None and known.sound and len(known.spaces) == 1 else None


def _plain(walk: "AxisPropagation", inputs: list[AxisInfo]) -> tuple[Any, ...]:
    return same_axes(walk, [walk.plain(value) for value in inputs])


@operation("eq", family="Elementwise functions", law="pass", positions="read")
def equal(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the common axes; positions on two axes are compared if the axes are one."""
    left, right = map(_single, inputs)
    if left is None or right is None or left.offset != right.offset:
        return _plain(walk, inputs)
    p, q = left.spaces[0], right.spaces[0]
    if p is None or q is None or p.size != q.size:
        return _plain(walk, inputs)
    walk.unify(p, q)
    return same_axes(walk, inputs)


@operation("lt", family="Elementwise functions", law="pass", positions="read")
def less(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the common axes; no position is negative, which is asked before a look-up."""
    left, right = inputs
    if left.positions is not None and right.value is not None and right.value <= 0 <= left.positions.offset:
        return uniform(equation.outvars[0].aval.shape, np.bool_(False))
    return _plain(walk, inputs)


@operation("add", family="Elementwise functions", law="pass", positions="read")
def add(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the common axes; positions and a number that stands in the program are positions yet."""
    for one, other in (inputs, inputs[::-1]):
        whole = other.value is not None and float(other.value).is_integer()
        if one.positions is not None and whole and len(one.axes) == len(equation.outvars[0].aval.shape):
            return one._replace(positions=one.positions._replace(offset=one.positions.offset + int(other.value)))
    return _plain(walk, inputs)


@operation("select_n", family="Elementwise functions", law="pass", positions="read")
def select(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the common axes; where it is known which case is taken, what is known of it."""
    which, *cases = inputs
    if which.value is not None:
        return cases[int(which.value)]
    return _plain(walk, inputs)


@operation("max", "min", "clamp", family="Elementwise functions", law="pass", positions="read")
def bounded(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the common axes; positions stay what they are between the ends of their axis."""
    at = [i for i, value in enumerate(inputs) if value.positions is not None]
    if len(at) == 1 and (known := _single(inputs[at[0]])) is not None and known.offset == 0:
        space, name, value = known.spaces[0], equation.primitive.name, inputs[at[0]]
        low = inputs[0] if name == "clamp" else inputs[1 - at[0]] if name == "max" else AxisInfo((), value=0)
        high = inputs[2] if name == "clamp" else inputs[1 - at[0]] if name == "min" else AxisInfo((), value=np.inf)
        within = low.value is not None and high.value is not None and space is not None
        if within and low.value <= 0 and high.value >= space.size - 1:  # type: ignore[union-attr]
            return value
    return _plain(walk, inputs)

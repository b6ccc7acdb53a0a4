"""Parts of axes: slices, splits, reversals, and axes put end to end."""

import math
from typing import TYPE_CHECKING, Any

from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Constant, Fixed
from tna_jax.matching.operations.elementwise import same_axes
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo, Positions

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Parts of axes"


@operation("slice", family=FAMILY, law="a stretch is a group of its own, and so are equal steps over all of the axis; other steps fix it",
           positions="kept")  # fmt: skip
def slice_(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the parts of the axes."""
    parameters = equation.params
    strides = parameters["strides"] or (1,) * len(inputs[0].axes)
    cuts = zip(inputs[0].axes, parameters["start_indices"], parameters["limit_indices"], strides, strict=True)
    return tuple(part(walk, *cut) for cut in cuts)


def part(walk: "AxisPropagation", axis: Axis, start: int, stop: int, stride: int = 1) -> Axis:
    """Returns the entries `start:stop:stride` of an axis."""
    if (start, stop, stride) == (0, axis.size, 1):
        return axis
    if stride > 1 and not axis.size % stride and start < stride and stop > axis.size - stride + start:
        units, step = walk.unifier.factor(axis, stride)  # as after a reshape to (units, stride)
        walk.fix(step)
        return walk.unifier.resolve(units)
    if stride != 1 or start == stop:
        size = max(0, math.ceil((stop - start) / stride))
        return Constant(size) if isinstance(walk.fix(axis), Constant) else Fixed(size)
    if stop < axis.size:
        axis, _ = walk.unifier.cut(axis, stop)
    if start:
        _, axis = walk.unifier.cut(axis, start)
    return axis


@operation("split", family=FAMILY, law="each part is a group of its own")
def split(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
    """Returns the parts of one axis."""
    at, start, result = equation.params["axis"], 0, []
    for size in equation.params["sizes"]:
        result.append(
            tuple(
                part(walk, walk.unifier.resolve(axis), start, start + size) if i == at else axis
                for i, axis in enumerate(inputs[0].axes)
            )
        )
        start += size
    return result


@operation("stack", family=FAMILY, law="pass beside a new axis, which is fixed")
def stack(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes of the operands, made the same, and one that counts the operands."""
    common, at = list(same_axes(walk, inputs)), equation.params["axis"]
    return (*common[:at], Fixed(len(inputs)), *common[at:])


@operation("unstack", family=FAMILY, law="the axis is fixed, the others pass")
def unstack(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
    """Returns the other axes, for each entry of one."""
    at = equation.params["axis"]
    walk.fix(inputs[0].axes[at])
    return [tuple(a for i, a in enumerate(inputs[0].axes) if i != at)] * len(equation.outvars)


@operation("rev", family=FAMILY, law="the reversed axis is fixed, the others pass")
def reverse(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes, some of them read from the end."""
    for i in equation.params["dimensions"]:
        walk.fix(inputs[0].axes[i])
    return tuple(
        axes.reverse(walk.unifier.resolve(axis)) if i in equation.params["dimensions"] else axis
        for i, axis in enumerate(inputs[0].axes)
    )


@operation("concatenate", family=FAMILY, law="parts pass, end to end", positions="read")
def concatenate(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns the axes, one of them end to end; positions beside each other stay, as a look-up takes them."""
    at = equation.params["dimension"]
    beside = at == len(inputs[0].axes) - 1 and all(value.axes[at].size == 1 for value in inputs)
    beside &= all(v.positions is None or (v.positions[1:] == (0, True) and len(v.positions[0]) == 1) for v in inputs)
    spaces = tuple(None if value.positions is None else value.positions.spaces[0] for value in inputs)
    if not beside or not any(spaces):
        inputs, spaces = [walk.plain(value) for value in inputs], ()
    result = list(inputs[0].axes)
    for value in inputs[1:]:
        result = [p if i == at else walk.unify(p, q) for i, (p, q) in enumerate(zip(result, value.axes, strict=True))]
    result[at] = axes.concat([walk.unifier.resolve(value.axes[at]) for value in inputs])
    return AxisInfo(tuple(result), positions=Positions(spaces) if spaces else None)


@operation("pad", family=FAMILY, law="pass beside equal entries; gaps between units and negative padding fix the axis")
def pad(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes between stretches of equal entries."""
    result: list[Axis] = []
    for i, (low, high, interior) in enumerate(equation.params["padding_config"]):
        axis = inputs[0].axes[i]
        if interior or min(low, high) < 0:
            walk.fix(axis)
            axis, low, high = Fixed(equation.outvars[0].aval.shape[i]), 0, 0
        result.append(axes.concat([Constant(int(low)), axis, Constant(int(high))]))
    return tuple(result)

"""Changes of shape: axes are moved, spread, joined and taken apart."""

from typing import TYPE_CHECKING, Any

from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Constant, Fixed
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo, uniform

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Changes of shape"


@operation("broadcast_in_dim", "broadcast_to", family=FAMILY, law="pass", positions="kept")
def broadcast_in_dim(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns the axes in their new places; entries along the others are equal."""
    shape = equation.outvars[0].aval.shape
    at = equation.params.get("broadcast_dimensions", range(len(shape) - len(inputs[0].axes), len(shape)))
    result = list(uniform(shape).axes)
    for axis, i in zip(inputs[0].axes, at, strict=True):
        if axis.size == shape[i]:
            result[i] = axis
    return AxisInfo(tuple(result), value=inputs[0].value)


@operation("tile", family=FAMILY, law="pass, as copies end to end")
def tile(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns products of equal copies and the axis."""
    return tuple(
        axes.product([Constant(int(copies)), axis]) if copies else Constant(0)
        for copies, axis in zip(equation.params["reps"], inputs[0].axes, strict=True)
    )


@operation("transpose", family=FAMILY, law="pass", positions="kept")
def transpose(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes in their new order."""
    return tuple(inputs[0].axes[i] for i in equation.params["permutation"])


@operation("squeeze", family=FAMILY, law="pass", positions="kept")
def squeeze(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes without those of one entry."""
    return tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["dimensions"])


@operation("expand_dims", family=FAMILY, law="pass", positions="kept")
def expand_dims(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes with new ones of one entry."""
    rest = iter(inputs[0].axes)
    rank = len(equation.outvars[0].aval.shape)
    return tuple(Fixed(1) if i in equation.params["dimensions"] else next(rest) for i in range(rank))


@operation("reshape", family=FAMILY, law="joined axes pass, cut ones in parts; what does not come apart is fixed",
           positions="kept")  # fmt: skip
def reshape(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns the axes as one product, cut again from the end."""
    shape = equation.outvars[0].aval.shape
    if 0 in shape:
        return uniform(shape)
    left: Axis = axes.product(list(inputs[0].axes))
    result: list[Axis] = []
    for size in reversed(shape):
        if size == 1:
            result.append(Fixed(1))
        elif walk.unifier.resolve(left).size == size:
            result.append(left)
            left = Fixed(1)
        else:
            left, last = walk.unifier.factor(left, size)
            result.append(last)
    return AxisInfo(tuple(result[::-1]), value=inputs[0].value)

"""Sums and other functions of all entries along an axis, of windows, and of what stands before."""

from typing import TYPE_CHECKING, Any

from tna_jax.matching.axes import Axis, Constant, Fixed
from tna_jax.matching.operations.elementwise import same_axes
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo, Positions

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Reductions and windows"
REDUCTIONS = {f"reduce_{name}" for name in ("sum", "max", "min", "prod", "and", "or", "xor")}


@operation(*sorted(REDUCTIONS), family=FAMILY, law="summed axes may be permuted, the others pass")
def reduction(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes that are left."""
    return tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["axes"])


@operation("reduce", family=FAMILY, law="reduced axes are fixed, the others pass")
def reduce_by_function(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
    """Returns the axes that are left; the function that reduces may heed the order."""
    operands = inputs[: len(equation.outvars)]
    common, reduced = same_axes(walk, operands), equation.params["dimensions"]
    for i in reduced:
        walk.fix(common[i])
    return [tuple(a for i, a in enumerate(common) if i not in reduced)] * len(equation.outvars)


def _moved(
    walk: "AxisPropagation", axes: tuple[Axis, ...], moved: list[int], shape: tuple[int, ...]
) -> tuple[Axis, ...]:
    """Fixes the axes `moved`; those of the result are of its shape."""
    for i in moved:
        walk.fix(axes[i])
    return tuple(Fixed(shape[i]) if i in moved else axis for i, axis in enumerate(axes))


@operation(
    "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", family=FAMILY, law="the axis is fixed, the others pass"
)
def cumulative(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes."""
    return _moved(walk, inputs[0].axes, [equation.params["axis"]], equation.outvars[0].aval.shape)


def _windowed(parameters: dict[str, Any]) -> list[int]:
    """The axes along which a window is more than one entry, or moves otherwise than by one."""
    ones = (1,) * len(parameters["window_dimensions"])
    columns = (
        parameters["window_dimensions"],
        parameters["window_strides"],
        parameters.get("base_dilation", ones),
        [1 + max(map(abs, pair)) for pair in parameters["padding"]],
    )
    return [i for i, numbers in enumerate(zip(*columns, strict=True)) if any(number != 1 for number in numbers)]


@operation("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window", family=FAMILY,
           law="axes of windows are fixed, the others pass")  # fmt: skip
def reduce_window(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
    """Returns the axes, for each operand."""
    shape = equation.outvars[0].aval.shape
    common = same_axes(walk, inputs[: len(equation.outvars)])
    return [_moved(walk, common, _windowed(equation.params), shape)] * len(equation.outvars)


@operation("select_and_scatter", "select_and_scatter_add", "select_and_gather_add", family=FAMILY,
           law="axes of windows are fixed, the others pass")  # fmt: skip
def pooling_gradient(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes: `inputs` are what is spread over the windows and what the windows are of, or the other way round."""
    first, second = inputs[:2]
    moved = _windowed(equation.params)
    result: list[Axis] = []
    for i, size in enumerate(equation.outvars[0].aval.shape):
        if i in moved:
            walk.fix(first.axes[i])
            walk.fix(second.axes[i])
            result.append(Fixed(size))
        else:
            result.append(walk.unify(first.axes[i], second.axes[i]))
    return tuple(result)


@operation("fft", family=FAMILY, law="transformed axes are fixed, the others pass")
def fft(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes."""
    axes, count = inputs[0].axes, len(equation.params["fft_lengths"])
    moved = list(range(len(axes) - count, len(axes)))
    return _moved(walk, axes, moved, equation.outvars[0].aval.shape)


@operation("top_k", "approx_top_k", family=FAMILY, law="values may come from permuted units; the axis of the result is fixed")  # fmt: skip
def top_k(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...] | AxisInfo]:
    """Returns the axes of the largest entries, and of their positions."""
    (operand,), shape = inputs, equation.outvars[0].aval.shape
    at = equation.params.get("axis", equation.params.get("reduction_dimension", -1)) % len(shape)
    result = tuple(Fixed(shape[at]) if i == at else axis for i, axis in enumerate(operand.axes))
    where = Positions((operand.axes[at],), sound=operand.differs(at) and equation.primitive.name == "top_k")
    return [result, AxisInfo(result, positions=where)]


@operation("sort", family=FAMILY, law="sorted units may be permuted; the axis of the result is fixed", positions="read")  # fmt: skip
def sort(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
    """Returns the axes; what is sorted along with other entries follows them if they differ."""
    at, keys = equation.params["dimension"], equation.params["num_keys"]
    keyed = [walk.plain(value) for value in inputs[:keys]]
    common = same_axes(walk, [*keyed, *inputs[keys:]])
    if keys < len(inputs) and not all(value.differs(at) for value in keyed):
        walk.fix(common[at])
    axis: Axis = Constant(common[at].size) if isinstance(common[at], Constant) else Fixed(common[at].size)
    result = tuple(axis if i == at else a for i, a in enumerate(common))
    return [AxisInfo(result, positions=value.positions) for value in [*keyed, *inputs[keys:]]]

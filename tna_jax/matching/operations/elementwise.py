"""Functions of entries, one by one: all operands have the same axes, and so has the result."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from tna_jax.matching.axes import Axis, Fixed
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Elementwise functions"
SMOOTH = ("add_any", "sub", "neg", "exp", "exp2", "log", "tanh", "logistic", "erf", "sqrt", "rsqrt", "square", "cbrt",
          "log1p", "log2", "expm1", "sinh", "cosh", "atan", "asinh", "erfc", "one_minus_square")  # fmt: skip
PRODUCTS = ("mul", "div", "integer_pow", "pow")
OTHERS = (
    "abs", "acos", "acosh", "and", "asin", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "ceil", "clz", "complex", "conj",
    "cos", "digamma", "eq_to", "erf_inv", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "imag", "is_finite", "le",
    "le_to", "lgamma", "lt_to", "mulhi", "ne", "nextafter", "not", "or", "polygamma", "polynomial", "population_count",
    "random_gamma_grad", "real", "reduce_precision", "regularized_incomplete_beta", "rem", "round", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "tan", "xor", "zeta",
)  # fmt: skip
SAME = ("convert_element_type", "copy", "copy_p", "stop_gradient", "name", "sharding_constraint", "layout_constraint", "reshard",
        "pvary", "pbroadcast", "mesh_cast", "to_edtype", "from_edtype", "xla_metadata_value")  # fmt: skip
POSITIONS = ("add", "eq", "lt", "max", "min", "select_n", "clamp")
"""Those with a rule of their own for integers that are positions (`operations/positions.py`)."""
ELEMENTWISE = {*SMOOTH, *PRODUCTS, *OTHERS, *SAME, *POSITIONS}
"""All of them: the shape of the result is that of the operands."""


def same_axes(walk: "AxisPropagation", inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes that operands of one shape have in common; scalars go along."""
    rank = max(len(value.axes) for value in inputs)
    full = [value.axes for value in inputs if len(value.axes) == rank]
    result = full[0]
    for other in full[1:]:
        result = tuple(
            q if p.size == 1 else p if q.size == 1 else walk.unify(p, q)  # an axis of size 1 is spread
            for p, q in zip(result, other, strict=True)
        )
    return result


@operation(*OTHERS, family=FAMILY, law="pass")
@operation(*PRODUCTS, family=FAMILY, law="pass")
@operation(*SMOOTH, family=FAMILY, law="pass")
def elementwise(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes of the operands, made the same."""
    return same_axes(walk, inputs)


@operation(*SAME, family="Operations that change no number", law="pass", positions="kept")
def same(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> AxisInfo:
    """Returns what is known of the operand; positions are positions yet if the type holds them all."""
    value, dtype = inputs[0], equation.outvars[0].aval.dtype
    if equation.primitive.name != "convert_element_type":
        return value
    spaces = value.positions.spaces if value.positions is not None else ()
    holds = jnp.issubdtype(dtype, jnp.integer) and all(
        space is None or space.size < jnp.iinfo(dtype).max for space in spaces
    )
    return (value if holds or not spaces else walk.plain(value))._replace(
        value=None if value.value is None else np.asarray(value.value).astype(dtype)[()]
    )


@operation("device_put", "optimization_barrier", "shard_alike", "pcast", "unpin", "pin", "dce_sink", "debug_callback", "debug_print",
           "inspect_sharding", "create_token", "after_all", "check",
           family="Operations that change no number", law="pass; what is printed is not looked at", positions="read")  # fmt: skip
def each_its_own(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
    """Returns what is known of each operand; of operations without an output, nothing."""
    scalars = [AxisInfo(tuple(map(Fixed, getattr(v.aval, "shape", ())))) for v in equation.outvars]
    return [*inputs[: len(scalars)], *scalars[len(inputs) :]]


@operation("bitcast_convert_type", family=FAMILY, law="pass")
def bitcast(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes; one that is added or goes, of the parts of a number, is fixed."""
    shape = equation.outvars[0].aval.shape
    before = inputs[0].axes
    for axis in before[len(shape) :]:
        walk.fix(axis)
    return (*before[: len(shape)], *map(Fixed, shape[len(before) :]))

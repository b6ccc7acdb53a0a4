"""Along which axes the entries of an array differ for almost all weights.

`argmax` names the first of the largest entries: where two are equal, the one it names depends on their order, and it may not
be followed to the unit that is meant. So much must be known of what is searched.
"""

from typing import Any

import jax.numpy as jnp

from tna_jax.matching.axes import Constant
from tna_jax.matching.operations.reductions import REDUCTIONS
from tna_jax.matching.values import AxisInfo

ONE_TO_ONE = {"neg", "exp", "exp2", "log", "sqrt", "rsqrt", "cbrt", "log1p", "expm1", "square", "integer_pow", "copy", "name",
              "stop_gradient", "convert_element_type", "sharding_constraint", "slice", "rev"}  # fmt: skip
"""Different entries give different ones; functions that saturate (`tanh`) are left out."""


def untied(equation: Any, inputs: list[AxisInfo]) -> tuple[bool, ...]:
    """Returns for each axis of the output whether entries along it differ for almost all weights; all False if it is not known.

    Args:
      equation: an operation with one output.
      inputs: what is known of its operands.
    """
    name, aval = equation.primitive.name, equation.outvars[0].aval
    rank = len(getattr(aval, "shape", ()))
    if not jnp.issubdtype(getattr(aval, "dtype", jnp.int32), jnp.floating) or jnp.finfo(aval.dtype).bits < 32:
        return (False,) * rank
    p, first, every = equation.params, inputs[0] if inputs else AxisInfo(()), range(rank)
    if name in ONE_TO_ONE:
        return tuple(first.differs(i) for i in every)
    if name in ("add", "add_any", "sub"):
        return tuple(any(value.differs(i) for value in inputs if len(value.axes) == rank) for i in every)
    if name == "mul":
        return tuple(all(value.differs(i) for value in inputs if not value.value) for i in every)
    if name == "div" and len(inputs[0].axes) == rank:
        return tuple(first.differs(i) and _harmless(inputs[1], i) for i in every)
    if name in REDUCTIONS:
        return tuple(first.differs(i) for i in range(len(first.axes)) if i not in p["axes"])
    if name == "transpose":
        return tuple(first.differs(i) for i in p["permutation"])
    if name == "squeeze":
        return tuple(first.differs(i) for i in range(len(first.axes)) if i not in p["dimensions"])
    if name == "reshape":
        return (all(first.differs(i) for i, axis in enumerate(first.axes) if axis.size > 1),) * rank
    if name == "broadcast_in_dim":
        sources = dict(zip(p["broadcast_dimensions"], range(len(first.axes)), strict=True))
        return tuple(i in sources and first.axes[sources[i]].size > 1 and first.differs(sources[i]) for i in every)
    if name == "dot_general":
        return _of_product(p["dimension_numbers"], inputs)
    if name == "conv_general_dilated":
        _, kernel, out = p["dimension_numbers"]
        return tuple(i == out[1] and inputs[1].differs(kernel[0]) for i in every)
    return (False,) * rank


def _harmless(divisor: AxisInfo, axis: int) -> bool:
    return not divisor.axes or divisor.differs(axis) or isinstance(divisor.axes[axis], Constant)


def _of_product(numbers: Any, inputs: list[AxisInfo]) -> tuple[bool, ...]:
    summed, batch = numbers
    both = [inputs[0].differs(i) or inputs[1].differs(j) for i, j in zip(*batch, strict=True)]
    rest = [
        value.differs(i)
        for value, s, b in zip(inputs, summed, batch, strict=True)
        for i in range(len(value.axes))
        if i not in (*s, *b)
    ]
    return (*both, *rest)

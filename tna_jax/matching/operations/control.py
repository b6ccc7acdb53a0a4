"""Loops and branches: a loop's body is walked until what is known of the carried values stays, of branches what all say."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tna_jax.matching import jaxprs
from tna_jax.matching.axes import Axis, Fixed
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Loops and branches"
ROUNDS = 50
"""Walks of a loop's body before all that is carried is fixed."""
Body = Callable[[list[AxisInfo]], list[AxisInfo]]


@operation("cond", family=FAMILY, law="pass as they do in all branches together")
def cond(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
    """Returns what all branches say of the outputs (`cond`, `switch`)."""
    with walk.inside():
        branches = [walk.run(branch, inputs[1:]) for branch in equation.params["branches"]]
    result = branches[0]
    for outputs in branches[1:]:
        result = [walk.join(one, other) for one, other in zip(result, outputs, strict=True)]
    return result


def fixpoint(walk: "AxisPropagation", body: Body, carry: list[AxisInfo]) -> tuple[list[AxisInfo], list[AxisInfo]]:
    """Walks a loop's body until what is known of the carried values is the same before and after it.

    Args:
      body: what is known of carried values -> what is known of all outputs, the carried ones first.
      carry: what is known before the first step.

    Returns:
      What is known of the carried values at every step, and of the other outputs.
    """
    carry = [AxisInfo(value.axes, value.data) for value in carry]
    with walk.inside():
        for _ in range(ROUNDS):
            outputs = body(carry)
            joined = [walk.join(one, other) for one, other in zip(carry, outputs, strict=False)]
            carry, joined = [walk.resolved(value) for value in carry], [walk.resolved(value) for value in joined]
            if carry == joined:
                return carry, outputs[len(carry) :]
            carry = joined
        for value in [*carry, *body(carry)]:
            for axis in value.axes:
                walk.fix(axis)
        carry = [AxisInfo(tuple(Fixed(axis.size) for axis in value.axes), value.data) for value in carry]
        outputs = body(carry)
        for axis in (axis for value in outputs for axis in value.axes):
            walk.fix(axis)
        return carry, outputs[len(carry) :]


@operation(
    "scan",
    family=FAMILY,
    law="pass as they do in every step; the axis of steps is fixed, but passes where nothing is carried",
)
def scan(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
    """Returns what is known of the carried values and of the stacked outputs (`scan`, `fori_loop`, `map`)."""
    parameters = equation.params
    consts, carried = jaxprs.scan_counts(equation)
    constants, carry, stacked = inputs[:consts], inputs[consts : consts + carried], inputs[consts + carried :]
    steps: Axis = Fixed(parameters["length"])
    if stacked and not carried:
        steps = stacked[0].axes[0]
    for value in stacked:
        steps = walk.unify(steps, value.axes[0])
    slices = [AxisInfo(value.axes[1:], value.data) for value in stacked]
    carry, outputs = fixpoint(walk, lambda held: walk.run(parameters["jaxpr"], [*constants, *held, *slices]), carry)
    return [*carry, *(AxisInfo((steps, *value.axes)) for value in outputs)]


@operation("while", family=FAMILY, law="pass as they do in every step")
def while_loop(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
    """Returns what is known of the carried values."""
    parameters = equation.params
    first = parameters["cond_nconsts"]
    second = first + parameters["body_nconsts"]

    def body(held: list[AxisInfo]) -> list[AxisInfo]:
        walk.run(parameters["cond_jaxpr"], [*inputs[:first], *held])
        return walk.run(parameters["body_jaxpr"], [*inputs[first:second], *held])

    return fixpoint(walk, body, inputs[second:])[0]

"""The table of operations: for each primitive by name, the rule for its axes and what the documentation says of it.

    @operation("transpose", family="Changes of shape", law="pass")
    def transpose(walk, equation, inputs):
        return tuple(inputs[0].axes[i] for i in equation.params["permutation"])

A rule says which axes must be the same (`walk.unify`), which must stay as they are (`walk.fix`), and what the axes of the
result are; it is right if permuting the inputs along their axes permutes the outputs along theirs. A primitive without a
rule fixes the axes of its inputs.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tna_jax.matching.axes import Axis
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

Outputs = tuple[Axis, ...] | AxisInfo | Sequence["tuple[Axis, ...] | AxisInfo"]
"""The axes of the only output, or all that is known of it; a list where there are several outputs."""
Rule = Callable[["AxisPropagation", Any, list[AxisInfo]], Outputs]


class Operation(NamedTuple):
    """A primitive that is known here."""

    rule: Rule
    family: str
    """The heading under which the documentation lists it."""
    law: str
    """What becomes of hidden units on its axes, in a few words."""
    positions: str
    """What it makes of integers that are positions on an axis: "fixed" fixes the axis, "kept" moves the integers about and
    changes none of them, "read" leaves them to the rule."""


OPERATIONS: dict[str, Operation] = {}
"""All rules, by the name of the primitive."""


def operation(*names: str, family: str, law: str, positions: str = "fixed") -> Callable[[Rule], Rule]:
    """Returns a decorator that puts a rule into the table.

    Args:
      names: of the primitives, as jaxprs print them.
      family, law, positions: as in `Operation`.
    """

    def put(rule: Rule) -> Rule:
        OPERATIONS.update({name: Operation(rule, family, law, positions) for name in names})
        return rule

    return put

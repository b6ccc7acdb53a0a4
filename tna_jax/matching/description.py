"""What a specification says to people: for each axis of each tensor its group, or which operation fixed it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax.extend import source_info_util

from tna_jax import trees
from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Concat, Constant, Group, Product

if TYPE_CHECKING:
    from tna_jax.matching.permutations import PermutationSpec


def reason(operation: Any) -> str:
    """Returns an operation in words: its name, the module and the line where it stands; a string as it is."""
    if not hasattr(operation, "primitive"):
        return str(operation)
    module = str(operation.source_info.name_stack)
    place = source_info_util.summarize(operation.source_info).split(" ")[0]
    where = f" in {module}" if module else ""
    return (
        f"{operation.primitive.name}{where} ({Path(place).name})"
        if ":" in place
        else f"{operation.primitive.name}{where}"
    )


def expression(axis: Axis) -> str:
    """Returns an axis in words: parts end to end with `+`, flattened ones with `x`; numbers are entries without a group."""
    if isinstance(axis, Group):
        return str(axis.name)
    if isinstance(axis, Concat):
        return " + ".join(
            f"({expression(part)})" if isinstance(part, Concat) else expression(part) for part in axis.parts
        )
    if isinstance(axis, Product):
        return " x ".join(
            f"({expression(part)})" if isinstance(part, Concat) else expression(part) for part in axis.parts
        )
    return f"{axis.size} equal" if isinstance(axis, Constant) else f"{axis.size} fixed"


def describe(spec: "PermutationSpec") -> str:
    """Returns a table, one line for each axis: the leaf, the axis, its size, its group, and what fixed it."""
    units = sum(spec.groups.values())
    lines = [
        f"{len(spec.groups)} groups, {units} units: {', '.join(f'{n} ({s})' for n, s in spec.groups.items()) or 'none'}"
    ]
    if spec.unknown:
        lines.append(f"operations that are not known here, whose axes are fixed: {', '.join(spec.unknown)}")
    rows = [*_rows(spec.params, spec.fixed_by, ""), *_rows(spec.state, spec.state_fixed_by, "state ")]
    width = max((len(row[0]) for row in rows), default=0)
    return "\n".join([*lines, *(f"{name:<{width}}  axis {i}  {size:>6}  {what}" for name, i, size, what in rows)])


def _rows(table: Any, why: Any, prefix: str) -> Iterator[tuple[str, int, int, str]]:
    for path, leaf in table.items():
        for i, axis in enumerate(leaf):
            what = expression(axis) if axes.groups(axis) else "fixed"
            yield prefix + trees.name(path), i, axis.size, what + (f" by {why[path][i]}" if why[path][i] else "")

"""Look-ups and updates at places: axes that are taken whole pass, those that are searched are fixed."""

from typing import TYPE_CHECKING, Any

from tna_jax.matching.axes import Axis, Constant, Fixed
from tna_jax.matching.operations.table import operation
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Look-ups and updates"


@operation("gather", family=FAMILY, law="axes taken whole pass; searched ones are fixed, but pass where positions on them are looked up",
           positions="read")  # fmt: skip
def gather(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes of the look-ups, and those of the operand that are taken whole, in the order that the numbers say."""
    operand, indices = walk.plain(inputs[0]), inputs[1]
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    known = indices.positions
    if known is not None and (known.offset or not known.sound or len(known.spaces) != len(numbers.start_index_map)):
        indices, known = walk.plain(indices), None
    spaces = dict(zip(numbers.start_index_map, known.spaces, strict=True)) if known else {}
    batched = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True))
    taken: list[Axis] = []
    for i, (axis, size) in enumerate(zip(operand.axes, sizes, strict=True)):
        space = spaces.get(i)
        if i in batched:
            walk.unify(axis, indices.axes[batched[i]])
        elif size == axis.size:  # from its first entry, or nothing at all
            taken.append(axis)
        elif isinstance(axis, Constant):
            taken.append(Constant(size))
        elif size == 1 and space is not None and space.size == axis.size:
            walk.unify(axis, space)
            spaces.pop(i)
            taken.append(Fixed(1))
        else:
            walk.fix(axis)
            taken.append(Fixed(size))
    for space in spaces.values():
        if space is not None:
            walk.fix(space)
    walk.fix(indices.axes[-1])
    kept = [i for i in range(len(sizes)) if i not in batched]
    offset = iter(axis for i, axis in zip(kept, taken, strict=True) if i not in numbers.collapsed_slice_dims)
    looked_up = iter(indices.axes[:-1])
    rank = len(equation.outvars[0].aval.shape)
    return tuple(next(offset) if i in numbers.offset_dims else next(looked_up) for i in range(rank))


@operation("scatter", "scatter_add", "scatter-add", "scatter_sub", "scatter-sub", "scatter_mul", "scatter-mul", "scatter_min",
           "scatter-min", "scatter_max", "scatter-max", family=FAMILY, law="axes written whole pass, the others are fixed")  # fmt: skip
def scatter(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the operand's axes."""
    operand, indices, updates = inputs
    numbers = equation.params["dimension_numbers"]
    batched = dict(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True))
    windows = iter(numbers.update_window_dims)
    places = [i for i in range(len(updates.axes)) if i not in numbers.update_window_dims]
    result: list[Axis] = []
    free = set(range(len(updates.axes)))
    for i, axis in enumerate(operand.axes):
        window = None if i in batched or i in numbers.inserted_window_dims else next(windows)
        if i in batched:
            at = places[batched[i]]
            free.discard(at)
            result.append(walk.unify(walk.unify(axis, updates.axes[at]), indices.axes[batched[i]]))
        elif window is not None and updates.axes[window].size == axis.size:
            free.discard(window)
            result.append(walk.unify(axis, updates.axes[window]))
        else:
            walk.fix(axis)
            result.append(Fixed(axis.size))
    for axis in [updates.axes[i] for i in sorted(free)]:
        walk.fix(axis)
    for i, axis in enumerate(indices.axes):
        if i not in batched.values():
            walk.fix(axis)
    return tuple(result)


@operation("dynamic_slice", family=FAMILY, law="axes taken whole pass, the others are fixed")
def dynamic_slice(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the operand's axes."""
    result: list[Axis] = []
    for axis, size in zip(inputs[0].axes, equation.params["slice_sizes"], strict=True):
        if axis.size == size:
            result.append(axis)
        else:
            result.append(Constant(size) if isinstance(walk.fix(axis), Constant) else Fixed(size))
    return tuple(result)


@operation("dynamic_update_slice", family=FAMILY, law="axes written whole pass, the others are fixed")
def dynamic_update_slice(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the operand's axes."""
    result: list[Axis] = []
    for old, new in zip(inputs[0].axes, inputs[1].axes, strict=True):
        if old.size == new.size:
            result.append(walk.unify(old, new))
        else:
            walk.fix(old)
            walk.fix(new)
            result.append(Fixed(old.size))
    return tuple(result)

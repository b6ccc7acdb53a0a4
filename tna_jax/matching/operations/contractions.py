"""Matrix products and convolutions: axes that are summed over together are the same units."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Fixed
from tna_jax.matching.operations.table import Outputs, operation
from tna_jax.matching.values import AxisInfo

if TYPE_CHECKING:
    from tna_jax.matching.tracing import AxisPropagation

FAMILY = "Products and convolutions"


@operation("dot_general", family=FAMILY, law="pass")
def dot_general(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes of batches, then those of the left and of the right operand that are not summed over."""
    summed, batch = equation.params["dimension_numbers"]
    result = _product(walk, summed, batch, inputs)
    walk.contraction(inputs, summed)
    return result


def _product(walk: "AxisPropagation", summed: Any, batch: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    left, right = inputs
    for i, j in zip(*summed, strict=True):
        walk.unify(left.axes[i], right.axes[j])
    both = [walk.unify(left.axes[i], right.axes[j]) for i, j in zip(*batch, strict=True)]
    rest = [
        [axis for i, axis in enumerate(value.axes) if i not in (*s, *b)]
        for value, s, b in zip(inputs, summed, batch, strict=True)
    ]
    return (*both, *rest[0], *rest[1])


@operation("ragged_dot_general", family=FAMILY, law="pass, but the axes of groups of rows are fixed")
def ragged_dot(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> Outputs:
    """Returns the axes as a product's; rows and the matrices that they meet stay in their order."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    left, right, sizes = inputs
    summed, batch = numbers.dot_dimension_numbers
    if numbers.lhs_ragged_dimensions[0] in (*summed[0], *batch[0]):
        return walk.fixed(equation, inputs)
    stacked = list(numbers.rhs_group_dimensions)
    for axis in (
        [left.axes[i] for i in numbers.lhs_ragged_dimensions] + [right.axes[i] for i in stacked] + list(sizes.axes)
    ):
        walk.fix(axis)
    kept = [i for i in range(len(right.axes)) if i not in stacked]
    fewer = right._replace(axes=tuple(right.axes[i] for i in kept))
    numbered = [[kept.index(i) for i in dimensions] for dimensions in (summed[1], batch[1])]
    return _product(walk, (summed[0], numbered[0]), (batch[0], numbered[1]), [left, fewer])


@operation("conv_general_dilated", family=FAMILY, law="channels pass, in groups of them too; positions are fixed")
def convolution(walk: "AxisPropagation", equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
    """Returns the axes of examples and channels, and fixed ones of positions."""
    parameters, (images, kernel) = equation.params, inputs
    lhs, rhs, out = parameters["dimension_numbers"]
    for axis in [images.axes[i] for i in lhs[2:]] + [kernel.axes[i] for i in rhs[2:]]:
        walk.fix(axis)
    shape = equation.outvars[0].aval.shape
    result: list[Axis] = list(map(Fixed, shape))
    if parameters["batch_group_count"] == 1:
        result[out[0]], result[out[1]] = images.axes[lhs[0]], _channels(walk, parameters, lhs, rhs, inputs)
    else:  # of gradients of convolutions in groups
        for axis in (images.axes[lhs[0]], images.axes[lhs[1]], kernel.axes[rhs[0]], kernel.axes[rhs[1]]):
            walk.fix(axis)
    walk.contraction(inputs, ((lhs[1],), (rhs[1],)))
    return tuple(result)


def _channels(
    walk: "AxisPropagation", parameters: Any, lhs: Sequence[int], rhs: Sequence[int], inputs: list[AxisInfo]
) -> Axis:
    images, kernel = inputs
    count, features = parameters["feature_group_count"], kernel.axes[rhs[0]]
    if count == 1:
        walk.unify(images.axes[lhs[1]], kernel.axes[rhs[1]])
        return features
    # the inputs' channels are count x those of the kernel, the outputs' count x (features / count)
    sets = walk.unifier.new(count)
    walk.unify(images.axes[lhs[1]], axes.product([sets, kernel.axes[rhs[1]]]))
    of_one_set = walk.unifier.new(features.size // count)
    return walk.unify(features, axes.product([walk.unifier.resolve(sets), of_one_set]))

"""Which axes of a network's parameters are the same hidden units: one rule for each operation of its jaxpr.

Every value carries one `Axis` for each of its dimensions. A rule says, for one primitive, which axes must be the same and
what the axes of the result are; it is right if permuting the inputs along their axes permutes the outputs along theirs.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.matching import axes
from tna_jax.matching.axes import Axis, Constant, Fixed
from tna_jax.matching.unification import Unifier


class AxisInfo(NamedTuple):
    """What is known of an array."""

    axes: tuple[Axis, ...]
    data: bool
    """Whether it depends on the network's inputs."""


class MatmulSite(NamedTuple):
    """A place where activations meet weights: an axis over which a matrix product or convolution sums."""

    contraction: int
    """Number of the operation, counted along the walk."""
    operand: int
    dimension: int
    axis: Axis


ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil",
    "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv",
    "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "lgamma", "log",
    "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or", "pow", "real",
    "reduce_precision", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
REDUCTIONS = {f"reduce_{name}" for name in ("sum", "max", "min", "prod", "and", "or", "xor")}


def constant(array: Any) -> AxisInfo:
    """Returns what is known of an array that stands in the program: axes along which all entries are equal are `Constant`."""
    if not hasattr(array, "shape") or array.ndim == 0 or jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return AxisInfo(tuple(Fixed(size) for size in np.shape(array)), False)
    array = np.asarray(array)

    def uniform(axis: int) -> bool:
        return bool((array == array.take([0], axis)).all()) if array.size else False

    return AxisInfo(tuple(Constant(n) if uniform(i) else Fixed(n) for i, n in enumerate(array.shape)), False)


class AxisPropagation:
    """Applies the rules to one `Unifier`; `sites` gathers where activations meet weights."""

    def __init__(self, unifier: Unifier) -> None:
        self.unifier = unifier
        self.sites: list[MatmulSite] = []
        self.contractions = 0

    def rule(self, equation: Any, inputs: list[AxisInfo]) -> list[AxisInfo]:
        """Returns the outputs' axes.

        Raises:
          ValueError: the operation is not known here, and hidden units reach it.
        """
        name = equation.primitive.name
        data = any(value.data for value in inputs)
        special = getattr(self, f"_{name}", None)
        if name in ELEMENTWISE:
            outputs = [self._elementwise(inputs)]
        elif name in REDUCTIONS:
            outputs = [tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["axes"])]
        elif name.startswith(("reduce_window", "cum")):
            outputs = [self._windows(equation, inputs)]
        elif name == "optimization_barrier":
            outputs = [value.axes for value in inputs]
        elif special is not None:
            result = special(equation, inputs)
            outputs = result if isinstance(result, list) else [result]
        else:
            self._refuse(equation, inputs)
            outputs = [tuple(map(Fixed, variable.aval.shape)) for variable in equation.outvars]
        return [AxisInfo(tuple(map(self.unifier.resolve, axes)), data) for axes in outputs]

    def _refuse(self, equation: Any, inputs: list[AxisInfo]) -> None:
        """Raises ValueError, unless no hidden unit reaches the operation: then its outputs stay as they are."""
        if any(axes.groups(self.unifier.resolve(axis)) for value in inputs for axis in value.axes):
            shapes = ", ".join(str(variable.aval.str_short()) for variable in equation.invars)
            raise ValueError(
                f"the permutations of this network cannot be found: the operation '{equation.primitive.name}' on hidden "
                f"units ({shapes}) is not known. Known are dense layers, convolutions, norms, attention, pooling, sums, "
                "elementwise functions and changes of shape."
            )

    def _fixed(self, value: AxisInfo, dimensions: Iterable[int]) -> None:
        for i in dimensions:
            self.unifier.fix(value.axes[i])

    def _elementwise(self, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        rank = max(len(value.axes) for value in inputs)
        full = [value.axes for value in inputs if len(value.axes) == rank]
        result = full[0]
        for other in full[1:]:
            result = tuple(
                q if p.size == 1 else p if q.size == 1 else self.unifier.unify(p, q)  # an axis of size 1 is spread
                for p, q in zip(result, other, strict=True)
            )
        return result

    def _windows(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        """Pooling and cumulative sums: their axes are fixed, the others pass."""
        parameters, shape = equation.params, equation.outvars[0].aval.shape
        if "axis" in parameters:
            moved: Any = [parameters["axis"]]
        else:
            moved = [
                i
                for i, window in enumerate(parameters["window_dimensions"])
                if window != 1 or tuple(parameters["padding"][i]) != (0, 0) or parameters["window_strides"][i] != 1
            ]
        self._fixed(inputs[0], moved)
        return tuple(Fixed(shape[i]) if i in moved else axis for i, axis in enumerate(inputs[0].axes))

    def _argmax(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        self._fixed(inputs[0], equation.params["axes"])
        return tuple(axis for i, axis in enumerate(inputs[0].axes) if i not in equation.params["axes"])

    _argmin = _argmax

    def _iota(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        shape, counted = equation.params["shape"], equation.params["dimension"]
        return tuple(Fixed(size) if i == counted else Constant(size) for i, size in enumerate(shape))

    def _broadcast_in_dim(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        shape, at = equation.params["shape"], equation.params["broadcast_dimensions"]
        result: list[Axis] = [Constant(size) if size > 1 else Fixed(1) for size in shape]
        for axis, i in zip(inputs[0].axes, at, strict=True):
            if axis.size == shape[i]:
                result[i] = axis
        return tuple(result)

    def _transpose(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        return tuple(inputs[0].axes[i] for i in equation.params["permutation"])

    def _squeeze(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        return tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["dimensions"])

    def _rev(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        self._fixed(inputs[0], equation.params["dimensions"])
        return inputs[0].axes

    def _reshape(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        """The axes as one product, cut again from the end; what does not come apart is fixed."""
        left: Axis = axes.product(list(inputs[0].axes))
        result: list[Axis] = []
        for size in reversed(equation.params["new_sizes"]):
            if size == 1:
                result.append(Fixed(1))
            elif self.unifier.resolve(left).size == size:
                result.append(left)
                left = Fixed(1)
            else:
                left, last = self.unifier.factor(left, size)
                result.append(last)
        return tuple(result[::-1])

    def _slice(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        parameters = equation.params
        strides = parameters["strides"] or (1,) * len(inputs[0].axes)
        cuts = zip(inputs[0].axes, parameters["start_indices"], parameters["limit_indices"], strides, strict=True)
        return tuple(self._part(*cut) for cut in cuts)

    def _part(self, axis: Axis, start: int, stop: int, stride: int) -> Axis:
        if (start, stop, stride) == (0, axis.size, 1):
            return axis
        if stride != 1 or start == stop:
            size = max(0, math.ceil((stop - start) / stride))
            return Constant(size) if isinstance(self.unifier.fix(axis), Constant) else Fixed(size)
        if stop < axis.size:
            axis, _ = self.unifier.cut(axis, stop)
        if start:
            _, axis = self.unifier.cut(axis, start)
        return axis

    def _split(self, equation: Any, inputs: list[AxisInfo]) -> list[tuple[Axis, ...]]:
        at, start, result = equation.params["axis"], 0, []
        for size in equation.params["sizes"]:
            part = self._part(self.unifier.resolve(inputs[0].axes[at]), start, start + size, 1)
            result.append((*inputs[0].axes[:at], part, *inputs[0].axes[at + 1 :]))
            start += size
        return result

    def _concatenate(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        at = equation.params["dimension"]
        result = list(inputs[0].axes)
        for value in inputs[1:]:
            result = [
                p if i == at else self.unifier.unify(p, q)
                for i, (p, q) in enumerate(zip(result, value.axes, strict=True))
            ]
        result[at] = axes.concat([self.unifier.resolve(value.axes[at]) for value in inputs])
        return tuple(result)

    def _pad(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        result: list[Axis] = []
        for i, (low, high, interior) in enumerate(equation.params["padding_config"]):
            axis = self.unifier.resolve(inputs[0].axes[i])
            if interior or min(low, high) < 0:
                self.unifier.fix(axis)
                axis, low, high = Fixed(equation.outvars[0].aval.shape[i]), 0, 0
            result.append(axes.concat([Constant(int(low)), axis, Constant(int(high))]))
        return tuple(result)

    def _gather(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        """A look-up: axes that are taken whole pass, those that are searched are fixed."""
        operand, indices = inputs
        numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
        whole = [
            size == axis.size and i not in numbers.start_index_map
            for i, (size, axis) in enumerate(zip(sizes, operand.axes, strict=True))
        ]
        self._fixed(operand, [i for i, passes in enumerate(whole) if not passes])
        self._fixed(indices, range(len(indices.axes)))
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
        kept = iter([operand.axes[i] if whole[i] else Fixed(sizes[i]) for i in range(len(sizes)) if i not in gone])
        shape = equation.outvars[0].aval.shape
        return tuple(next(kept) if i in numbers.offset_dims else Fixed(shape[i]) for i in range(len(shape)))

    def _dynamic_slice(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        sizes = equation.params["slice_sizes"]
        moved = [i for i, (axis, size) in enumerate(zip(inputs[0].axes, sizes, strict=True)) if axis.size != size]
        self._fixed(inputs[0], moved)
        return tuple(Fixed(sizes[i]) if i in moved else axis for i, axis in enumerate(inputs[0].axes))

    def _dot_general(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        (summed, batch) = equation.params["dimension_numbers"]
        left, right = inputs
        for i, j in (*zip(*summed, strict=True), *zip(*batch, strict=True)):
            self.unifier.unify(left.axes[i], right.axes[j])
        self._contraction(inputs, summed)
        both = [self.unifier.unify(left.axes[i], right.axes[j]) for i, j in zip(*batch, strict=True)]
        rest = [
            [axis for i, axis in enumerate(value.axes) if i not in (*s, *b)]
            for value, s, b in zip(inputs, summed, batch, strict=True)
        ]
        return (*both, *rest[0], *rest[1])

    def _conv_general_dilated(self, equation: Any, inputs: list[AxisInfo]) -> tuple[Axis, ...]:
        parameters, (images, kernel) = equation.params, inputs
        lhs, rhs, out = parameters["dimension_numbers"]
        self._fixed(images, lhs[2:])
        self._fixed(kernel, rhs[2:])
        if parameters["batch_group_count"] != 1:
            self._refuse(equation, inputs)
        count = parameters["feature_group_count"]
        features = kernel.axes[rhs[0]]
        if count == 1:
            self.unifier.unify(images.axes[lhs[1]], kernel.axes[rhs[1]])
        else:  # the inputs' channels are count x those of the kernel, the outputs' count x (features / count)
            sets = self.unifier.new(count)
            self.unifier.unify(images.axes[lhs[1]], axes.product([sets, kernel.axes[rhs[1]]]))
            of_one_set = self.unifier.new(features.size // count)
            features = self.unifier.unify(features, axes.product([self.unifier.resolve(sets), of_one_set]))
        self._contraction(inputs, ((lhs[1],), (rhs[1],)))
        shape = equation.outvars[0].aval.shape
        result: list[Axis] = list(map(Fixed, shape))
        result[out[0]], result[out[1]] = images.axes[lhs[0]], features
        return tuple(result)

    def _contraction(self, inputs: list[AxisInfo], summed: Sequence[Sequence[int]]) -> None:
        """Counts the operation, and notes the sums of data over weights."""
        data = [value.data for value in inputs]
        if data.count(True) == 1:
            operand = data.index(True)
            self.sites += [MatmulSite(self.contractions, operand, i, inputs[operand].axes[i]) for i in summed[operand]]
        self.contractions += 1

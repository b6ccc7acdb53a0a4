"""The dense and convolutional layers of a network, found in its jaxpr, and a way to change their outputs.

A layer is a matrix product or convolution of activations with one parameter that has one axis of output units; its bias is a
parameter of one value a unit that is added to the product before anything else is. Any framework's function will do.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import trees
from tna_jax.matching import jaxprs
from tna_jax.trees import KeyPath


class Layer(NamedTuple):
    """Where a layer stands in the parameters and in the walk over the jaxpr."""

    name: str
    """That of the module: `"Dense_0"`, `"layers/0"`; of the kernel where the module has several."""
    kernel: KeyPath
    kernel_axis: int
    """The kernel's axis of output units."""
    bias: KeyPath | None
    bias_axis: int
    """The bias's axis of units; 0 without a bias."""
    step: int
    """The number of the operation whose result is the layer's output."""
    axis: int
    """The output's axis of units."""


class _Parameter(NamedTuple):
    """A leaf, perhaps reshaped: for each axis the leaf's axis that it is in full, or None."""

    path: KeyPath
    axes: tuple[int | None, ...]


class _Output(NamedTuple):
    """A layer's output before anything but its bias was done to it."""

    layer: int
    axis: int


class _Value(NamedTuple):
    shape: tuple[int, ...]
    data: bool
    """Whether it depends on the inputs."""
    weights: bool
    """Whether it depends on the parameters."""
    what: _Parameter | _Output | None = None
    made_of: frozenset[KeyPath] = frozenset()
    """The parameters that it is computed from; of what depends on inputs: none."""


SAME = {"convert_element_type", "copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier"}


def find_layers(closed: Any, params: Any, inputs: int) -> tuple[list[Layer], list[KeyPath]]:
    """Returns the layers of a network in the order in which they run, and the kernels that are none: those of several axes of units.

    So are kernels of tied layers, which multiply once with one axis and once with another, and one for each expert.

    Args:
      closed: the closed jaxpr of (params, inputs) -> outputs.
      params: the parameters that it was traced with.
      inputs: number of leaves of the inputs.

    Raises:
      ValueError: weights that activations are multiplied with are not one parameter as it stands, or layers are run by a loop
        (`scan`), so that they cannot be told apart.
    """
    arguments = [
        _Value(np.shape(leaf), False, True, _Parameter(path, tuple(range(np.ndim(leaf)))), frozenset({path}))
        for path, leaf in trees.named_leaves(params)
    ]
    arguments += [_Value(tuple(v.aval.shape), True, False) for v in closed.jaxpr.invars[len(arguments) :]]
    assert len(closed.jaxpr.invars) == len(jax.tree.leaves(params)) + inputs
    layers: list[Layer] = []
    unknown: list[KeyPath] = []
    step = -1

    def rule(equation: Any, values: list[_Value]) -> list[_Value]:
        nonlocal step
        step += 1
        name = equation.primitive.name
        what: _Parameter | _Output | None = None
        if name in jaxprs.CONTRACTIONS:
            what = _contraction(equation, values, layers, unknown, step)
        elif name in ("add", "add_any"):
            what = _bias(values, layers, step)
        elif values and values[0].what is not None:
            what = _moved(equation, values[0])
        if any(v.data for v in values) and any(v.weights for v in values):
            _refuse_loops(equation)
        data, weights = any(v.data for v in values), any(v.weights for v in values)
        made_of = frozenset() if data else frozenset().union(*(v.made_of for v in values))
        return [_Value(tuple(v.aval.shape), data, weights, what, made_of) for v in equation.outvars]

    def constant(value: Any) -> _Value:
        return _Value(np.shape(value), False, False)

    jaxprs.eval_jaxpr_with(closed.jaxpr, [constant(value) for value in closed.consts], arguments, rule, constant)
    sides: dict[KeyPath, set[int]] = {}
    for layer in layers:
        sides.setdefault(layer.kernel, set()).add(layer.kernel_axis)
    tied = [kernel for kernel, axes in sides.items() if len(axes) > 1]
    named = _named([layer for layer in layers if layer.kernel not in tied])
    kernels = {layer.kernel for layer in named}
    return named, [path for path in dict.fromkeys([*unknown, *tied]) if path not in kernels]


def run_layers(
    closed: Any, arguments: list[Any], layers: list[Layer], edit: Callable[[int, jax.Array], jax.Array]
) -> list[jax.Array]:
    """Runs a closed jaxpr with `edit(number of the layer, output with units last)` on the output of every layer.

    Args:
      closed: as in `find_layers`.
      arguments: leaves of the parameters and of the inputs, arrays.
      layers: of this jaxpr.
      edit: gives what stands in the output's place.

    Returns:
      The leaves of the network's outputs.
    """
    at = {layer.step: i for i, layer in enumerate(layers)}
    step = -1

    def rule(equation: Any, inputs: list[Any]) -> list[Any]:
        nonlocal step
        step += 1
        result = equation.primitive.bind(*inputs, **equation.params)
        if step not in at:
            return list(result) if equation.primitive.multiple_results else [result]
        axis = layers[at[step]].axis
        units_last = jax.numpy.moveaxis(result, axis, -1)
        return [jax.numpy.moveaxis(edit(at[step], units_last), -1, axis)]

    return jaxprs.eval_jaxpr_with(closed.jaxpr, closed.consts, arguments, rule, lambda value: value)


def _named(layers: list[Layer]) -> list[Layer]:
    """The layers with the names of their modules; where a module has several kernels, of the kernel."""
    kernels = {layer.kernel for layer in layers}
    modules = Counter(kernel[:-1] for kernel in kernels)
    return [
        layer._replace(
            name=trees.name(layer.kernel if modules[layer.kernel[:-1]] > 1 else layer.kernel[:-1] or layer.kernel)
        )
        for layer in layers
    ]


def _contraction(
    equation: Any, values: list[_Value], layers: list[Layer], unknown: list[KeyPath], step: int
) -> _Output | None:
    """Notes a product of activations with a parameter, and says which axis of the result holds the units."""
    sides = [i for i, value in enumerate(values) if value.weights and not value.data]
    if len(sides) != 1 or not values[1 - sides[0]].data:
        return None
    side, kernel = sides[0], values[sides[0]]
    if equation.primitive.name == "dot_general":
        summed, batch = equation.params["dimension_numbers"]
        free = [i for i in range(len(kernel.shape)) if i not in (*summed[side], *batch[side])]
        if len(free) != 1 or batch[side]:
            unknown += sorted(kernel.made_of)
            return None  # attention's projections to several heads, products with one vector, a kernel for each expert
        other = len(values[1 - side].shape) - len(summed[0]) - len(batch[0])
        axis = len(batch[0]) + (0 if side == 0 else other)
    else:
        if side != 1:
            unknown += sorted(kernel.made_of)
            return None
        _, rhs, out = equation.params["dimension_numbers"]
        free, axis = [rhs[0]], out[1]
    units = kernel.what.axes[free[0]] if isinstance(kernel.what, _Parameter) else None
    if kernel.shape[free[0]] == 1:
        units = 0  # one unit: its one factor is spread over whatever axis
    if not isinstance(kernel.what, _Parameter) or units is None:
        raise ValueError(
            f"a layer of this network multiplies activations with weights {kernel.shape} that are not one parameter as it "
            f"stands but are made of parameters by other operations ({', '.join(map(trees.name, sorted(kernel.made_of)))}), so "
            "its units cannot be rescaled"
        )
    layers.append(Layer("", kernel.what.path, units, None, 0, step, axis))
    return _Output(len(layers) - 1, axis)


def _bias(values: list[_Value], layers: list[Layer], step: int) -> _Output | None:
    """Notes a sum of a layer's output with a parameter of one value a unit."""
    for output, other in (values, values[::-1]):
        if not isinstance(output.what, _Output) or not isinstance(other.what, _Parameter):
            continue
        layer, axis = output.what
        at = other.what.axes[axis] if len(other.shape) == len(output.shape) else None
        full = [i for i, leaf_axis in enumerate(other.what.axes) if leaf_axis is not None and other.shape[i] > 1]
        if at is None or full != [axis] or layers[layer].bias is not None or other.shape[axis] != output.shape[axis]:
            continue
        layers[layer] = layers[layer]._replace(bias=other.what.path, bias_axis=at, step=step, axis=axis)
        return _Output(layer, axis)
    return None


def _moved(equation: Any, value: _Value) -> _Parameter | _Output | None:
    """What a change of shape makes of a parameter or output."""
    name, shape = equation.primitive.name, tuple(equation.outvars[0].aval.shape)
    sources: list[int | None]
    if name in SAME:
        sources = list(range(len(shape)))
    elif name == "transpose":
        sources = list(equation.params["permutation"])
    elif name == "broadcast_in_dim":
        sources = [None] * len(shape)
        for source, target in enumerate(equation.params["broadcast_dimensions"]):
            sources[target] = source if value.shape[source] == shape[target] else None
    elif name in ("reshape", "squeeze", "expand_dims"):
        sources = _reshaped(value.shape, shape)
    else:
        return None
    if isinstance(value.what, _Parameter):
        axes = value.what.axes
        return _Parameter(value.what.path, tuple(None if s is None else axes[s] for s in sources))
    if isinstance(value.what, _Output) and value.what.axis in sources:
        return _Output(value.what.layer, sources.index(value.what.axis))
    return None


def _reshaped(before: tuple[int, ...], after: tuple[int, ...]) -> list[int | None]:
    """For each axis of a reshaped array the old axis that it is, or None."""
    starts = {(int(np.prod(before[:i])), size): i for i, size in enumerate(before) if size > 1}
    return [starts.get((int(np.prod(after[:i])), size)) if size > 1 else None for i, size in enumerate(after)]


def _refuse_loops(equation: Any) -> None:
    if contracts(equation) and equation.primitive.name not in jaxprs.CONTRACTIONS:
        raise ValueError(
            f"layers of this network are run by {equation.primitive.name!r}, so that they cannot be told apart: write them out "
            "(no nn.scan, jax.lax.scan or jax.lax.cond)"
        )


def contracts(equation: Any) -> bool:
    """Returns whether an operation is a matrix product or convolution, or runs one inside."""
    inner = [jaxpr for value in equation.params.values() for jaxpr in _jaxprs(value)]
    return equation.primitive.name in jaxprs.CONTRACTIONS or any(map(_contracts, inner))


def _jaxprs(value: Any) -> Iterator[Any]:
    if hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _jaxprs(part)


def _contracts(jaxpr: Any) -> bool:
    return any(map(contracts, jaxpr.eqns))

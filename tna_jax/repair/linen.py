"""The dense and convolutional layers of a Linen module, and a way to change their outputs, under whatever lifted transformation.

Every layer's output is given a name while the module is traced, and found by it in the jaxpr: inside `nn.remat` and `nn.jit` as
outside; a loop over layers (`nn.scan`) is run step by step, each step a layer of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from jax.ad_checkpoint import checkpoint_name

from tna_jax import sharding, trees
from tna_jax.masks import Params
from tna_jax.matching import jaxprs, layers
from tna_jax.trees import KeyPath

MARK = "tna_jax layer "
BATCH_NORM = "this network has BatchNorm: use reset_batch_stats, which is its repair"
LAYERS = (nn.Dense, nn.DenseGeneral, nn.Conv, nn.ConvTranspose)
MOVES = {
    "convert_element_type", "copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier", "transpose", "rev",
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "dynamic_slice", "split", "concatenate", "gather", "pad", "name",
    "sharding_constraint", "select_n",
}  # fmt: skip
"""Operations that leave entries of a parameter what they are."""


class Layer(NamedTuple):
    """A layer of the module."""

    units: int
    """How many of the last axes of its output count units."""
    axis: int
    """The kernel's last axis of units."""
    kernel: tuple[int, ...]
    """The kernel's shape where the layer runs: in a loop without the axis of steps."""
    bias: bool


class _Use(NamedTuple):
    """What is known of a value in the jaxpr."""

    data: bool
    as_it_stands: frozenset[tuple[KeyPath, int | None]] = frozenset()
    """Parameters that it is entries of, and which of the parameter's axes comes first, if that is known."""
    changed: frozenset[KeyPath] = frozenset()
    """Parameters that it is computed from."""

    @property
    def parameters(self) -> list[KeyPath]:
        """Both."""
        return sorted({path for path, _ in self.as_it_stands} | self.changed)


class LinenLayers:
    """A Linen module whose layers are its submodules `nn.Dense`, `nn.DenseGeneral`, `nn.Conv` and `nn.ConvTranspose`.

    Attributes:
      unknown: paths of other modules whose parameters activations are multiplied with; they are left as they are.
    """

    def __init__(self, module: nn.Module, params: Params, inputs: Any) -> None:
        self.inputs = inputs
        self.layers: dict[str, Layer] = {}
        self.unknown: tuple[str, ...] = ()
        self.stacked: dict[KeyPath, int] = {}
        """Of the parameters of layers in a loop, the axis of steps."""

        def intercept(call: Callable[..., Any], arguments: Any, options: Any, context: Any) -> Any:
            layer = context.module
            if isinstance(layer, nn.BatchNorm):
                raise ValueError(BATCH_NORM)
            if isinstance(layer, nn.SpectralNorm):
                raise ValueError(
                    f"{'/'.join(layer.path)!r} is spectrally normalized: its kernel is transformed before it is used, so "
                    "rescaling it would change nothing; such networks cannot be repaired"
                )
            output = call(*arguments, **options)
            own = layer.variables.get("params", {}) if context.method_name == "__call__" and layer.path else {}
            if "kernel" not in own:
                return output
            path = "/".join(layer.path)
            if not isinstance(layer, LAYERS):
                self.unknown = tuple(dict.fromkeys([*self.unknown, path]))
                return output
            swapped = isinstance(layer, nn.ConvTranspose) and layer.transpose_kernel
            units = len(np.atleast_1d(layer.features)) if isinstance(layer, nn.DenseGeneral) else 1
            self.layers[path] = Layer(units, -2 if swapped else -1, jnp.shape(meta.unbox(own["kernel"])), "bias" in own)
            return checkpoint_name(output, MARK + path)

        def run(params: Params, inputs: Any) -> Any:
            with nn.intercept_methods(intercept):
                return module.apply({"params": sharding.unconstrained(params)}, inputs)

        self.closed, shape = jax.make_jaxpr(run, return_shape=True)(params, inputs)
        self.outputs = jax.tree.structure(shape)
        self._require_plain_kernels(params)

    def run(self, params: Params, edit: Callable[[str, jax.Array], jax.Array]) -> Any:
        """Applies the network with `edit` on the output of every layer, its units on the last axis."""

        def rule(equation: Any, values: list[Any], steps: tuple[int, ...]) -> list[Any]:
            name = equation.params.get("name") if equation.primitive.name == "name" else None
            if not isinstance(name, str) or not name.startswith(MARK):
                result = equation.primitive.bind(*values, **equation.params)
                return list(result) if equation.primitive.multiple_results else [result]
            path, (output,) = name.removeprefix(MARK), values
            flat = output.reshape(*output.shape[: output.ndim - self.layers[path].units], -1)
            stacked = (*path.split("/"), "kernel") in self.stacked
            step = "".join(f"[{i}]" for i in steps) if stacked else ""
            return [edit(path + step, flat).reshape(output.shape)]

        arguments = [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, self.inputs))]
        return jax.tree.unflatten(self.outputs, _run(self.closed, arguments, rule, ()))

    def scaled(
        self, path: str, flat: dict[KeyPath, Any], scale: jax.Array, offset: jax.Array
    ) -> tuple[dict[KeyPath, Any], jax.Array | None]:
        """Rescales and shifts a layer's units by its kernel and bias.

        Args:
          path: the layer.
          flat: the parameters by path.
          scale, offset: (units,)

        Returns:
          The leaves that are new, and the offset that is left over where the layer has no bias.
        """
        name, *steps = path.replace("]", "").split("[")
        layer, at = self.layers[name], tuple(name.split("/"))
        kernel = (*at, "kernel")
        new = {kernel: self._on_step(flat[kernel], kernel, steps, lambda k: _scaled(k, scale, None, layer))}
        if not layer.bias:
            return new, offset
        bias = (*at, "bias")
        as_bias = layer._replace(axis=-1)
        new[bias] = self._on_step(flat[bias], bias, steps, lambda b: _scaled(b, scale, offset, as_bias))
        return new, None

    def _on_step(self, leaf: Any, path: KeyPath, steps: list[str], change: Callable[[Any], Any]) -> Any:
        if not steps:
            return change(leaf)
        moved = jnp.moveaxis(jnp.asarray(leaf), self.stacked[path], 0)
        i = int(steps[0])
        return jnp.moveaxis(moved.at[i].set(change(moved[i])), 0, self.stacked[path])

    def _require_plain_kernels(self, params: Params) -> None:
        """Raises ValueError unless every layer multiplies activations with its kernel as it stands."""
        named = trees.named_leaves(params)
        values = [_Use(False, frozenset({(path, 0)})) for path, _ in named]
        values += [_Use(True)] * len(jax.tree.leaves(self.inputs))
        changed: set[KeyPath] = set()
        multiplied: list[KeyPath] = []

        def rule(equation: Any, inputs: list[_Use], steps: tuple[int, ...]) -> list[_Use]:
            name = equation.primitive.name
            if any(use.data for use in inputs):
                if layers.contracts(equation):
                    multiplied.extend(path for use in inputs if not use.data for path in use.parameters)
                changed.update(path for use in inputs for path in use.changed)
                return [_Use(True)] * len(equation.outvars)
            before = frozenset(path for use in inputs for path in use.changed)
            entries = frozenset(pair for use in inputs for pair in use.as_it_stands)
            factor = name in ("mul", "div") and not (
                inputs[-1].as_it_stands and (name == "div" or inputs[0].as_it_stands)
            )
            if name in MOVES or factor:
                same = (
                    name in ("convert_element_type", "copy", "copy_p", "sharding_constraint", "stop_gradient") or factor
                )
                if name == "transpose":
                    entries = frozenset(
                        (path, equation.params["permutation"][0] if first == 0 else None) for path, first in entries
                    )
                elif not same:
                    entries = frozenset((path, None) for path, _ in entries)
                use = _Use(False, entries, before)
            else:
                use = _Use(False, frozenset(), before | {path for path, _ in entries})
            return [use] * len(equation.outvars)

        def stack(equation: Any, use: _Use) -> _Use:
            for path, first in use.as_it_stands:
                if first is not None:
                    self.stacked[path] = first
            return use

        _look(self.closed, values, rule, stack)
        kernels = {path: (*path.split("/"), "kernel") for path in self.layers}
        shapes = {path: np.shape(leaf) for path, leaf in named}
        others = [path for path in multiplied if path not in kernels.values() and len(shapes[path]) > 1]
        self.unknown = tuple(dict.fromkeys([*self.unknown, *(trees.name(path[:-1] or path) for path in others)]))
        wrong = [path for path, kernel in kernels.items() if changed & {kernel, (*kernel[:-1], "bias")}]
        if wrong:
            raise ValueError(
                f"these layers transform their kernels (weight norm, standardized weights) before they use them, so that "
                f"rescaling a kernel does not rescale its units: {', '.join(wrong)}; such networks cannot be repaired"
            )
        lifted = []
        for path, kernel in kernels.items():
            axis, shape = self.stacked.get(kernel), shapes[kernel]
            inner = shape if axis is None else shape[:axis] + shape[axis + 1 :]
            if inner != self.layers[path].kernel:
                lifted.append(path)
        if lifted:
            raise ValueError(
                f"these layers are run by a transformation that is not known here, as nn.vmap, or by loops within loops: "
                f"{', '.join(lifted)}; write them out"
            )


def _scaled(leaf: Any, scale: jax.Array, offset: jax.Array | None, layer: Layer) -> Any:
    """A kernel or bias times a factor for each unit, in float32; the dtype is kept."""
    leaf = jnp.asarray(leaf)
    last = jnp.moveaxis(leaf, layer.axis, -1)
    flat = last.reshape(*last.shape[: last.ndim - layer.units], -1).astype(jnp.float32)
    spread = flat.ndim * [1]
    spread[-1] = -1
    result = flat * scale.reshape(spread)
    if offset is not None:
        result = result + offset.reshape(spread)
    return jnp.moveaxis(result.reshape(last.shape).astype(leaf.dtype), -1, layer.axis)


def _run(closed: Any, arguments: list[Any], rule: Callable[..., list[Any]], steps: tuple[int, ...]) -> list[Any]:
    """Evaluates a jaxpr; loops that hold layers are run step by step."""

    def each(equation: Any, values: list[Any]) -> list[Any]:
        if not _holds_layers(equation):
            return rule(equation, values, steps)
        body, consts, carry, stacked = _loop(equation, values)
        count, outputs = equation.params["length"], []
        order = range(count)[::-1] if equation.params["reverse"] else range(count)
        for i in order:
            results = _run(body, [*consts, *carry, *(x[i] for x in stacked)], rule, (*steps, i))
            carry = results[: len(carry)]
            outputs.append(results[len(carry) :])
        if equation.params["reverse"]:
            outputs.reverse()
        return [*carry, *(jnp.stack(column) for column in zip(*outputs, strict=True))]

    return jaxprs.eval_jaxpr_with(closed.jaxpr, closed.consts, arguments, each, lambda value: value)


def _look(
    closed: Any, values: list[_Use], rule: Callable[..., list[_Use]], stack: Callable[[Any, _Use], _Use]
) -> list[_Use]:
    """Walks a jaxpr; loops that hold layers are looked at once."""

    def each(equation: Any, inputs: list[_Use]) -> list[_Use]:
        if not _holds_layers(equation):
            return rule(equation, inputs, ())
        body, consts, carry, stacked = _loop(equation, inputs)
        inner = [*consts, *(use._replace(data=True) for use in carry), *(stack(equation, use) for use in stacked)]
        _look(body, inner, rule, lambda _, use: use)
        return [_Use(True)] * len(equation.outvars)

    return jaxprs.eval_jaxpr_with(
        closed.jaxpr, [_Use(False)] * len(closed.consts), values, each, lambda value: _Use(False)
    )


def _loop(equation: Any, values: list[Any]) -> tuple[Any, list[Any], list[Any], list[Any]]:
    """The body of a scan, and what goes into it: constants, what is carried on, what is stacked."""
    consts, carried = jaxprs.scan_counts(equation)
    return equation.params["jaxpr"], values[:consts], values[consts : consts + carried], values[consts + carried :]


def _holds_layers(equation: Any) -> bool:
    """Whether an operation is a loop over layers.

    Raises:
      ValueError: it is another operation with layers inside.
    """
    inner = [x for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(x)]
    names = [name for jaxpr in inner for name in _marks(jaxpr)]
    if names and equation.primitive.name != "scan":
        raise ValueError(
            f"the layers {', '.join(sorted(set(names)))} are run by {equation.primitive.name!r}, so that they cannot be told apart: "
            "write them out"
        )
    return bool(names)


def _is_jaxpr(leaf: Any) -> bool:
    return hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")


def _marks(jaxpr: Any) -> list[str]:
    """The layers inside a jaxpr."""
    found: list[str] = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name = equation.params.get("name") if equation.primitive.name == "name" else None
        if isinstance(name, str) and name.startswith(MARK):
            found.append(name.removeprefix(MARK))
        for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            found += _marks(x) if _is_jaxpr(x) else []
    return found

"""Whether an optimizer treats every entry on its own, read off its program: then it may run on trainable entries alone.

The update is traced, not run, in the shapes of the parameters and in those of their packed entries. Every operation on arrays must be
elementwise, combine one parameter's arrays only, and be the same in both shapes. So norms, trust ratios, factored moments,
orthogonalized updates, noise, and rules that go by a parameter's shape are found whatever they are called.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend
import numpy as np
import optax

from tna_jax import trees
from tna_jax.masks import Params
from tna_jax.matching.operations.elementwise import ELEMENTWISE

_ELEMENTWISE = ELEMENTWISE | {"optimization_barrier"}
"""Operations whose result at an entry depends on the operands at that entry (and on scalars) alone."""

_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
"""Operations that run another program once, and what that is called there."""


class NotElementwise(ValueError):
    """An optimizer mixes entries; the message says which operation does it."""


def require_elementwise(
    optimizer: optax.GradientTransformation, params: Params, shapes: Sequence[tuple[int, ...]], **extra_args: Any
) -> None:
    """Checks that an optimizer treats every entry on its own, and in the same way whatever the shape it comes in.

    Args:
      optimizer: an optax transformation.
      params: parameters, or their `jax.ShapeDtypeStruct`s.
      shapes: other shapes of its leaves, of the same ranks; the program must be the same in them.
      **extra_args: what its `update` is given besides updates, state and parameters.

    Raises:
      NotElementwise: it mixes entries, or goes by the shape of a parameter.
    """
    leaves = jax.tree.leaves(params)
    names = [trees.name(path) for path, leaf in trees.named_leaves(params) if not isinstance(leaf, optax.MaskedNode)]
    programs = []
    for chosen in ([np.shape(leaf) for leaf in leaves], shapes):
        # A scalar is told from a count only by its shape: parameters have axes here.
        arrays = [trees.shape_of(leaf, shape or (3,)) for leaf, shape in zip(leaves, chosen, strict=True)]
        programs.append(_Reading(names).read(optimizer, trees.like(params, arrays), extra_args))
    if programs[0] != programs[1]:
        raise NotElementwise("it treats a parameter by its shape")


class _Reading:
    """One reading of an optimizer's two programs.

    A value is `None` (no entry of a parameter in it: counts, rates, constants), the number of a group of arrays that belong to one
    parameter, or `_FOREIGN` (an array with values of its own for every entry).
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.parents = list(range(len(names)))
        self.operations: list[Any] = []

    def read(self, optimizer: optax.GradientTransformation, params: Params, extra_args: dict[str, Any]) -> list[Any]:
        """Returns the operations, in an order and a form that do not depend on shapes."""
        leaves = list(range(len(self.names)))
        init, state = jax.make_jaxpr(optimizer.init, return_shape=True)(params)
        made = self._walk(init.jaxpr, self._constants(init), leaves)
        held = []
        for value, leaf in zip(made, jax.tree.leaves(state), strict=True):
            held.append(self._new(value) if np.ndim(leaf) else None)
        update = functools.partial(optax.with_extra_args_support(optimizer).update, **extra_args)
        closed = jax.make_jaxpr(update)(params, state, params)
        outputs = self._walk(closed.jaxpr, self._constants(closed), [*leaves, *held, *leaves])
        for source, value in zip([*leaves, *held], outputs, strict=True):
            if value is _FOREIGN:
                raise NotElementwise("it makes an array with values of its own for every entry")
            if source is not None:
                self._same([source, value])
        owners: dict[int, int] = {}
        for leaf in leaves:
            owner = owners.setdefault(self._root(leaf), leaf)
            if owner != leaf:
                raise NotElementwise(f"it combines {self.names[owner]} and {self.names[leaf]}")
        return self.operations

    def _walk(self, jaxpr: Any, constants: list[Any], inputs: list[Any]) -> list[Any]:
        values = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
        order = {variable: n for n, variable in enumerate([*jaxpr.constvars, *jaxpr.invars])}

        def value(atom: Any) -> Any:
            return (None if np.ndim(atom.val) == 0 else _FOREIGN) if _is_literal(atom) else values[atom]

        def name(atom: Any) -> Any:
            return (str(atom.aval.dtype), np.asarray(atom.val).tobytes()) if _is_literal(atom) else order[atom]

        for equation in jaxpr.eqns:
            self.operations.append((equation.primitive.name, *map(name, equation.invars), *_options(equation)))
            outputs = self._apply(equation, [value(atom) for atom in equation.invars])
            for variable, result in zip(equation.outvars, outputs, strict=True):
                values[variable] = result
                order[variable] = len(order)
        self.operations.append(tuple(map(name, jaxpr.outvars)))
        return [value(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, inputs: list[Any]) -> list[Any]:
        kind, outputs = equation.primitive.name, equation.outvars
        if kind in _CALLS:
            inner = equation.params[_CALLS[kind]]
            if hasattr(inner, "consts"):
                return self._walk(inner.jaxpr, self._constants(inner), inputs)
            return self._walk(inner, [], inputs)
        if kind == "cond":
            if inputs[0] is not None:
                raise NotElementwise("what it does depends on entries (cond)")
            branches = [self._walk(b.jaxpr, self._constants(b), inputs[1:]) for b in equation.params["branches"]]
            return [self._same(list(values)) for values in zip(*branches, strict=True)]
        arrays = [v for v in inputs if v is not None]
        if kind in _ELEMENTWISE:
            return [self._same(arrays)] if len(outputs) == 1 else inputs
        if kind in ("broadcast_in_dim", "reshape", "squeeze") and arrays:
            same = tuple(equation.invars[0].aval.shape) == tuple(outputs[0].aval.shape)
            if same or _FOREIGN in arrays:
                return arrays
        elif kind == "broadcast_in_dim":
            return [None]
        if any(v is not _FOREIGN for v in arrays):
            where = ", ".join(
                dict.fromkeys(self.names[self._root(v)] for v in arrays if v is not _FOREIGN and v < len(self.names))
            )
            raise NotElementwise(f"it combines entries{' of ' * bool(where)}{where} ({kind})")
        return [_FOREIGN if variable.aval.shape else None for variable in outputs]

    def _same(self, values: list[Any]) -> Any:
        """The group of values that are combined entry by entry."""
        groups = [v for v in values if v is not None and v is not _FOREIGN]
        if groups and any(v is _FOREIGN for v in values):
            raise NotElementwise(
                "it combines entries with an array that has values of its own for each (noise, a constant)"
            )
        if not groups:
            return _FOREIGN if any(v is _FOREIGN for v in values) else None
        roots = sorted({self._root(v) for v in groups})
        for other in roots[1:]:
            self.parents[other] = roots[0]
        return roots[0]

    def _new(self, value: Any) -> int:
        """A group for an array of the state."""
        if value is _FOREIGN:
            raise NotElementwise("its state has an array with values of its own for every entry")
        self.parents.append(len(self.parents))
        own = len(self.parents) - 1
        return own if value is None else int(self._same([own, value]))

    def _root(self, group: int) -> int:
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    @staticmethod
    def _constants(closed: Any) -> list[Any]:
        return [None if np.ndim(value) == 0 else _FOREIGN for value in closed.consts]


_FOREIGN: Any = "foreign"


def _is_literal(atom: Any) -> bool:
    return isinstance(atom, jax.extend.core.Literal)


def _options(equation: Any) -> list[Any]:
    """The parameters of an operation that say what it computes, in a form that can be compared; shapes are left out."""
    options = []
    for key, value in sorted(equation.params.items()):
        if isinstance(value, (int, float, str, bool, np.dtype)) or key in ("new_dtype", "accuracy"):
            options.append((key, str(value)))
    return options

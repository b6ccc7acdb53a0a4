"""Which axes of a network's parameters its units sum over: those of a layer's inputs, and the window of a convolution.

What is left of a parameter's axes counts the units whose incoming weights, biases or scales the parameter holds. The jaxpr is
walked once more: every axis of a value that is made of parameters alone carries the axes of parameters that it comes from,
until the value meets data.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import trees
from tna_jax.matching import jaxprs
from tna_jax.matching.operations.elementwise import ELEMENTWISE
from tna_jax.matching.operations.reductions import REDUCTIONS
from tna_jax.trees import KeyPath, Tree

Sources = frozenset[tuple[int, int]]
"""Axes of parameters, each (number of the leaf, axis)."""


class Origin(NamedTuple):
    """Where an array comes from."""

    axes: tuple[Sources, ...]
    """For each axis, the axes of parameters that it runs along; of data: none."""
    data: bool
    """Whether it depends on the network's inputs."""


def incoming_axes(closed: Any, params: Tree, state: Tree) -> dict[KeyPath, tuple[bool, ...]]:
    """Returns for each leaf which of its axes units sum over.

    Args:
      closed: the closed jaxpr of (params, state, inputs) -> outputs.
      params, state: the trees, or their shapes.
    """
    named, walk = trees.named_leaves(params), IncomingAxes()
    origins = [
        Origin(tuple(frozenset({(n, i)}) for i in range(np.ndim(leaf))), False) for n, (_, leaf) in enumerate(named)
    ]
    origins += [_nothing(leaf) for leaf in jax.tree.leaves(state)]
    origins += [_nothing(variable.aval)._replace(data=True) for variable in closed.jaxpr.invars[len(origins) :]]
    jaxprs.eval_jaxpr_with(closed.jaxpr, [_nothing(c) for c in closed.consts], origins, walk.rule, _nothing)
    return {
        path: tuple((n, i) in walk.summed and (n, i) not in walk.kept for i in range(np.ndim(leaf)))
        for n, (path, leaf) in enumerate(named)
    }


def _nothing(array: Any) -> Origin:
    """An array of no parameter's."""
    return Origin((frozenset(),) * len(np.shape(array)), False)


def _union(axes: Sequence[tuple[Sources, ...]]) -> tuple[Sources, ...]:
    return tuple(frozenset().union(*parts) for parts in zip(*axes, strict=True))


def _join(one: Origin, other: Origin) -> Origin:
    return Origin(_union([one.axes, other.axes]), one.data or other.data)


class IncomingAxes:
    """Rules for the walk; gathers the axes that are summed over where parameters meet data, and those that are not."""

    def __init__(self) -> None:
        self.summed: set[tuple[int, int]] = set()
        self.kept: set[tuple[int, int]] = set()

    def rule(self, equation: Any, inputs: list[Origin]) -> list[Origin]:
        """Returns the outputs' origins; an operation that has no rule forgets them."""
        name, data = equation.primitive.name, any(value.data for value in inputs)
        if name in ("cond", "while", "scan"):
            outputs = getattr(self, f"_run_{name}")(equation, inputs)
            return [value._replace(data=data) for value in outputs]
        special = getattr(self, f"_{name}", None)
        if special is not None:
            axes = special(equation, inputs)
        elif name in ELEMENTWISE:
            axes = [self._elementwise(equation, inputs)]
        elif name in REDUCTIONS:
            axes = [tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["axes"])]
        elif (
            len(equation.invars) == len(equation.outvars) == 1
            and self._shape(equation) == equation.invars[0].aval.shape
        ):
            axes = [inputs[0].axes]
        else:
            axes = [(frozenset(),) * len(variable.aval.shape) for variable in equation.outvars]
        if data:  # parameters beside data, one to one: what they are axes of are units
            if name in ELEMENTWISE:
                self._keep(source for value in inputs for axis in value.axes for source in axis)
            axes = [(frozenset(),) * len(variable.aval.shape) for variable in equation.outvars]
        return [Origin(tuple(value), data) for value in axes]

    def _keep(self, sources: Iterable[tuple[int, int]]) -> None:
        self.kept.update(sources)

    def _shape(self, equation: Any) -> tuple[int, ...]:
        shape: tuple[int, ...] = equation.outvars[0].aval.shape
        return shape

    def _elementwise(self, equation: Any, inputs: list[Origin]) -> tuple[Sources, ...]:
        rank = len(self._shape(equation))
        return _union([value.axes for value in inputs if len(value.axes) == rank])

    def _broadcast_in_dim(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        result: list[Sources] = [frozenset()] * len(equation.params["shape"])
        for i, axis in zip(equation.params["broadcast_dimensions"], inputs[0].axes, strict=True):
            result[i] = axis
        return [tuple(result)]

    def _transpose(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [tuple(inputs[0].axes[i] for i in equation.params["permutation"])]

    def _squeeze(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [tuple(a for i, a in enumerate(inputs[0].axes) if i not in equation.params["dimensions"])]

    def _reshape(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        """Axes that are joined or cut: each run of old axes and of new ones with the same product has the same sources."""
        old, new = list(enumerate(equation.invars[0].aval.shape)), list(self._shape(equation))
        result: list[Sources] = []
        at = 0
        while len(result) < len(new):
            here, size, product = [new[len(result)]], new[len(result)], 1
            sources: Sources = frozenset()
            while product != size:
                if product < size and at < len(old):
                    product *= old[at][1]
                    sources |= inputs[0].axes[at]
                    at += 1
                elif len(result) + len(here) < len(new):
                    here.append(new[len(result) + len(here)])
                    size *= here[-1]
                else:
                    return [(frozenset().union(*inputs[0].axes),) * len(new)]
            result += [sources] * len(here)
        return [tuple(result)]

    def _concatenate(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [tuple(frozenset().union(*parts) for parts in zip(*(value.axes for value in inputs), strict=True))]

    def _pad(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [inputs[0].axes]

    _slice = _rev = _dynamic_slice = _pad

    def _split(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [inputs[0].axes] * len(equation.outvars)

    def _tile(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [inputs[0].axes]

    def _stack(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        at, common = equation.params["axis"], _union([value.axes for value in inputs])
        return [(*common[:at], frozenset(), *common[at:])]

    def _optimization_barrier(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        return [value.axes for value in inputs]

    def _gather(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        """A look-up: the axes that are searched are the inputs."""
        operand, numbers = inputs[0], equation.params["dimension_numbers"]
        shape, sizes = equation.invars[0].aval.shape, equation.params["slice_sizes"]
        whole = {i for i, size in enumerate(sizes) if size == shape[i] and i not in numbers.collapsed_slice_dims}
        searched = {*numbers.start_index_map, *numbers.collapsed_slice_dims} - whole
        gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
        if inputs[1].data and not operand.data:
            self.summed.update(source for i in searched for source in operand.axes[i])
            self._keep(source for i, axis in enumerate(operand.axes) if i not in searched for source in axis)
        kept = iter([axis for i, axis in enumerate(operand.axes) if i not in gone])
        offset, rank = numbers.offset_dims, len(self._shape(equation))
        return [tuple(next(kept, frozenset()) if i in offset else frozenset() for i in range(rank))]

    def _dot_general(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        summed, batch = equation.params["dimension_numbers"]
        self._meet(inputs, summed)
        rest = [
            [axis for i, axis in enumerate(value.axes) if i not in (*s, *b)]
            for value, s, b in zip(inputs, summed, batch, strict=True)
        ]
        both = [inputs[0].axes[i] | inputs[1].axes[j] for i, j in zip(*batch, strict=True)]
        return [(*both, *rest[0], *rest[1])]

    def _conv_general_dilated(self, equation: Any, inputs: list[Origin]) -> list[tuple[Sources, ...]]:
        kernel = equation.params["dimension_numbers"][1]
        self._meet(inputs, ((), [i for i in range(len(kernel)) if i != kernel[0]]))
        return [(frozenset(),) * len(self._shape(equation))]

    def _meet(self, inputs: list[Origin], summed: Sequence[Sequence[int]]) -> None:
        if not any(value.data for value in inputs):
            return
        for value, axes in zip(inputs, summed, strict=True):
            if not value.data:
                self.summed.update(source for i in axes for source in value.axes[i])
                self._keep(source for i, axis in enumerate(value.axes) if i not in axes for source in axis)

    def _walk(self, closed: Any, inputs: list[Origin]) -> list[Origin]:
        consts = [_nothing(value) for value in closed.consts]
        return jaxprs.eval_jaxpr_with(closed.jaxpr, consts, inputs, self.rule, _nothing)

    def _twice(
        self, body: Callable[[list[Origin]], list[Origin]], carry: list[Origin]
    ) -> tuple[list[Origin], list[Origin]]:
        """A loop's body at its first step and at the later ones: what is carried, and the other outputs."""
        first = body(carry)
        carry = [_join(one, other) for one, other in zip(carry, first, strict=False)]
        later = body(carry)
        return [_join(one, other) for one, other in zip(carry, later, strict=False)], later[len(carry) :]

    def _run_cond(self, equation: Any, inputs: list[Origin]) -> list[Origin]:
        branches = [self._walk(branch, inputs[1:]) for branch in equation.params["branches"]]
        return [functools.reduce(_join, outputs) for outputs in zip(*branches, strict=True)]

    def _run_while(self, equation: Any, inputs: list[Origin]) -> list[Origin]:
        first = equation.params["cond_nconsts"]
        second = first + equation.params["body_nconsts"]
        body = equation.params["body_jaxpr"]
        return self._twice(lambda held: self._walk(body, [*inputs[first:second], *held]), inputs[second:])[0]

    def _run_scan(self, equation: Any, inputs: list[Origin]) -> list[Origin]:
        parameters = equation.params
        first, carried = jaxprs.scan_counts(equation)
        second = first + carried
        slices = [value._replace(axes=value.axes[1:]) for value in inputs[second:]]
        carry, outputs = self._twice(
            lambda held: self._walk(parameters["jaxpr"], [*inputs[:first], *held, *slices]), inputs[first:second]
        )
        return [*carry, *(value._replace(axes=(frozenset(), *value.axes)) for value in outputs)]

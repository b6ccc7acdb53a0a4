"""Walks a jaxpr and those it calls, operation by operation: with arrays, or with whatever a rule makes of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

NESTED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters under which a primitive that only calls another jaxpr holds it."""
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call",
         "custom_vjp_call_jaxpr", "custom_lin"}  # fmt: skip


def eval_jaxpr_with(
    jaxpr: Any,
    consts: list[Any],
    arguments: list[Any],
    rule: Callable[[Any, list[Any]], list[Any]],
    constant: Callable[[Any], Any],
) -> list[Any]:
    """Runs `rule(equation, inputs) -> outputs` over a jaxpr and those it calls, in order; returns the outputs' values.

    Args:
      jaxpr: an open jaxpr.
      consts: values of its constants.
      arguments: values of its inputs.
      rule: gives the outputs of one equation.
      constant: makes a value of an array that stands in the program.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
        return constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        inner = next((equation.params[name] for name in NESTED if name in equation.params), None)
        if equation.primitive.name in CALLS and inner is not None:
            closed = hasattr(inner, "consts")
            known = [constant(value) for value in inner.consts] if closed else []
            outputs = eval_jaxpr_with(inner.jaxpr if closed else inner, known, inputs, rule, constant)
        else:
            outputs = rule(equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


CONTRACTIONS = ("dot_general", "conv_general_dilated")


def contractions(closed: Any, arguments: list[Any]) -> Iterator[tuple[jax.Array, ...]]:
    """Runs a closed jaxpr on arrays; returns the operands of every matrix product and convolution, in the order of the walk."""
    operands: list[tuple[jax.Array, ...]] = []

    def rule(equation: Any, inputs: list[Any]) -> list[Any]:
        if equation.primitive.name in CONTRACTIONS:
            operands.append(tuple(inputs))
        outputs = equation.primitive.bind(*inputs, **equation.params)
        return list(outputs) if equation.primitive.multiple_results else [outputs]

    eval_jaxpr_with(closed.jaxpr, closed.consts, arguments, rule, lambda value: value)
    return iter(operands)

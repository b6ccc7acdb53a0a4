"""Walks a jaxpr and those it calls, operation by operation: with arrays, or with whatever a rule makes of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

NESTED = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")
"""Parameters under which a primitive that only calls another jaxpr holds it."""
CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call",
         "custom_vjp_call_jaxpr", "custom_lin", "custom_vmap_call", "composite"}  # fmt: skip


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


def idle(jaxpr: Any) -> set[int]:
    """Returns the ids of the equations, here and in all jaxprs within, on whose results no entry of an output depends.

    What `jnp.pad` does along axes that it does not pad is of this kind: it cuts off ends, and puts none of their entries back.
    """
    needed = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal) and _entries(atom)}
    result: set[int] = set()
    for equation in reversed(jaxpr.eqns):
        inner = [leaf for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(leaf)]
        result.update(*(idle(getattr(leaf, "jaxpr", leaf)) for leaf in inner))
        if needed.isdisjoint(equation.outvars) and not equation.effects:
            result.add(id(equation))
        else:
            needed |= {a for a in equation.invars if not isinstance(a, core.Literal) and _entries(a)}
    return result


def _entries(atom: Any) -> bool:
    return bool(getattr(atom.aval, "size", 1))


def _is_jaxpr(leaf: Any) -> bool:
    return hasattr(leaf, "eqns")


def used_inputs(jaxpr: Any) -> list[bool]:
    """Returns for each input of a jaxpr whether an operation takes it, in the jaxpr itself or in one that it calls."""
    used: set[Any] = {atom for atom in jaxpr.outvars if not isinstance(atom, core.Literal)}
    for equation in jaxpr.eqns:
        inner = next((equation.params[name] for name in NESTED if name in equation.params), None)
        called = equation.primitive.name in CALLS and inner is not None
        taken = used_inputs(getattr(inner, "jaxpr", inner)) if called else [True] * len(equation.invars)
        used |= {
            a for a, takes in zip(equation.invars, taken, strict=True) if takes and not isinstance(a, core.Literal)
        }
    return [variable in used for variable in jaxpr.invars]


def scan_counts(equation: Any) -> tuple[int, int]:
    """Returns how many of a scan's inputs are constants, and how many are carried on; the rest is cut into steps.

    JAX 0.12.0.1 keeps them as a structure of three parts, `ft_in`, releases before it as two numbers.
    """
    parameters = equation.params
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    constants, carried, _ = (len(part) for part in parameters["ft_in"].unpack())
    return constants, carried


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

"""Which leaves of a network's state are running averages of what training normalizes by, and which merely live beside them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tna_jax import trees
from tna_jax.networks import State

LINEAR = {
    "add", "add_any", "sub", "neg", "convert_element_type", "copy", "copy_p", "stop_gradient", "reshape", "broadcast_in_dim", "squeeze",
    "expand_dims", "transpose", "reduce_precision", "optimization_barrier", "sharding_constraint", "psum", "psum_invariant", "pvary",
}  # fmt: skip
"""Operations that are affine in all their operands together."""


class _Reach(NamedTuple):
    """Which leaves of the state a value depends on."""

    affine: frozenset[int] = frozenset()
    otherwise: frozenset[int] = frozenset()


def running_averages(trained: Callable[[State], State], state: State) -> list[bool]:
    """Returns for each leaf of a state whether it is a running average: floating-point, and new = m * old + what does not depend on old.

    What else frameworks keep in the same collection is none: the vectors of a power iteration (spectral norm) are no affine function of
    the old ones, and its estimates do not depend on the old ones at all.

    Args:
      trained: old state -> new state, of a step in training mode.
      state: pytree.
    """
    leaves = [leaf for _, leaf in trees.named_leaves(state)]
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    names = [path[-1] if path else "" for path, _ in trees.named_leaves(state)]
    if all(name in ("mean", "var") or not real for name, real in zip(names, floating, strict=True)):
        return floating  # BatchNorm's alone: nothing to find out
    closed = jax.make_jaxpr(trained)(state)
    start = [_Reach(frozenset({i})) for i in range(len(leaves))]

    def rule(equation: Any, inputs: list[_Reach]) -> list[_Reach]:
        name = equation.primitive.name
        everything = frozenset().union(*(reach.affine | reach.otherwise for reach in inputs))
        affine = frozenset().union(*(reach.affine for reach in inputs))
        otherwise = frozenset().union(*(reach.otherwise for reach in inputs))
        touched = [bool(reach.affine or reach.otherwise) for reach in inputs]
        linear = (
            name in LINEAR
            or (name == "mul" and sum(touched) <= 1)
            or (name == "div" and not touched[1])
            or (name == "select_n" and not any(floating[i] for i in inputs[0].affine | inputs[0].otherwise))
        )
        reach = _Reach(affine, otherwise) if linear else _Reach(frozenset(), everything)
        return [reach] * len(equation.outvars)

    from tna_jax.matching import jaxprs  # all of `matching` with it, which takes 0.1 s

    outputs = jaxprs.eval_jaxpr_with(closed.jaxpr, [_Reach()] * len(closed.consts), start, rule, lambda value: _Reach())
    return [real and i in outputs[i].affine and i not in outputs[i].otherwise for i, real in enumerate(floating)]

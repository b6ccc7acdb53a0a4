"""Activation matching: hidden units are renamed so that they are active on the same inputs as another network's."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tna_jax import networks, sharding
from tna_jax.masks import Params
from tna_jax.matching import assignment, axes, jaxprs, permutations
from tna_jax.matching.assignment import Matching
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.networks import State


@sharding.outside_meshes
def activation_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    inputs: jax.Array,
    *,
    states: tuple[State, State] = ((), ()),
    batch_size: int = 500,
    check: bool = True,
) -> Matching:
    """Permutes `b` so that its units are active where those of `a` are: arXiv 2209.04836, section 3.1.

    For each group the sum over examples and positions of the products of both networks' activations is the gain of one
    linear assignment. Which activations: those that meet the next layer's weights (after the non-linearity), all such places
    of a residual stream together; this choice is ours. Laws: as `tna_jax.matching.weights.weight_matching`, but for the objective.

    Args:
      spec, a, b, check: as there.
      inputs: (N, ...) training inputs.
      states: of `a` and of `b`.
      batch_size: inputs per pass.

    Raises:
      ValueError: no inputs, non-finite activations.
    """
    if not len(inputs):
        raise ValueError("activation matching needs at least one input")
    gains = _activation_gains(spec)
    total: dict[str, np.ndarray] = {}
    for start in range(0, len(inputs), batch_size):
        part = gains((a, states[0]), (b, states[1]), inputs[start : start + batch_size])
        total = {name: total.get(name, 0) + np.asarray(gain, np.float64) for name, gain in part.items()}
    assignment.require_finite({(name,): gain for name, gain in total.items()})
    permutation = permutations.identity(spec)
    for name, gain in total.items():
        new, old = assignment.assign(gain), permutation[name]
        rows = np.arange(len(old))
        if gain[rows, new].sum() > gain[rows, old].sum():
            permutation[name] = new
    objective = sum(float(gain[np.arange(len(gain)), permutation[name]].sum()) for name, gain in total.items())
    moving = sum(bool((order != np.arange(len(order))).any()) for order in permutation.values())
    return assignment.finish(spec, permutation, b, states[1], objective, (1, len(total), moving), check)


def _activation_gains(spec: PermutationSpec) -> Callable[..., dict[str, jax.Array]]:
    """A compiled function of two models, ((params, state), ...), and inputs (B, ...): by group, the gains (n, n) float32."""

    def run(params: Params, state: State, x: Any) -> jax.Array:
        return networks.evaluate(spec.network, params, state, x)

    def activations(model: tuple[Params, State], x: Any) -> list[jax.Array]:
        """By site: the activations with the summed axis first."""
        closed = jax.make_jaxpr(run)(*model, x)
        operands = list(jaxprs.contractions(closed, jax.tree.leaves((*model, x))))
        fronts = []
        for site in spec.sites:
            front = jax.numpy.moveaxis(operands[site.contraction][site.operand], site.dimension, 0)
            fronts.append(front.reshape(front.shape[0], -1).astype(np.float32))
        return fronts

    @jax.jit
    def gains(a: tuple[Params, State], b: tuple[Params, State], x: Any) -> dict[str, jax.Array]:
        both = list(zip(spec.sites, activations(a, x), activations(b, x), strict=True))
        total = {}
        for name in spec.groups:
            parts = [
                p @ q.T
                for site, left, right in both
                for p, q in zip(axes.views(left, site.axis, name), axes.views(right, site.axis, name), strict=True)
            ]
            if parts:
                total[name] = sum(parts[1:], parts[0])
        return total

    return gains

"""Activation matching: hidden units are renamed so that they are active on the same inputs as another network's."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import networks, prng, sharding
from tna_jax.masks import Params
from tna_jax.matching import ascent, assignment, axes, jaxprs, magnitudes, permutations
from tna_jax.matching.assignment import Matching
from tna_jax.matching.axes import Axis
from tna_jax.matching.correlations import Correlations
from tna_jax.matching.gains import Gains, real_leaves
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.networks import State


@sharding.outside_meshes
def activation_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    inputs: Any,
    *,
    states: tuple[State, State] = ((), ()),
    batch_size: int = 500,
    key: jax.Array | None = None,
    restarts: int = 1,
    check: bool = True,
    tolerance: float | None = None,
) -> Matching:
    """Permutes `b` so that its units are active where those of `a` are: arXiv 2209.04836, section 3.1.

    For each group the sum over examples and positions of the products of both networks' activations is the gain of one
    linear assignment. Which activations: those that meet the next layer's weights (after the non-linearity), all such places
    of a residual stream together; this choice is ours. Groups within each other, heads and their units, are matched in turn until
    neither gains anything: heads first, each pair by the best order of its units. Groups whose activations meet no weights (the
    units of queries and keys, which meet each other) are matched by weights afterwards, the others held; `Matching.by_weights`
    names them. Laws: as `tna_jax.matching.weights.weight_matching`, but for the objective, which is that of the activations.

    Args:
      spec, a, b, check, tolerance: as there.
      inputs: (N, ...) training inputs.
      states: of `a` and of `b`.
      batch_size: inputs per pass.
      key: of the shuffles before restarts; default: `jax.random.key(0)`.
      restarts: number of starts, as there; they can differ where groups are within each other.

    Raises:
      ValueError: no inputs, fewer than 1 start, weights or activations that are not finite, or a network whose program is no
        longer the one that the spec was traced from.
    """
    count = len(jax.tree.leaves(inputs)[0])
    if not count:
        raise ValueError("activation matching needs at least one input")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    permutations.require_leaves(spec, a=a, b=b)
    first, second = real_leaves(a), real_leaves(b)
    assignment.require_finite_models(a=first, b=second)
    places, products = _products(spec)
    total: list[np.ndarray] = [np.zeros((axis.size,) * 2) for axis in places]
    for start in range(0, count, batch_size):
        batch = jax.tree.map(lambda x, start=start: x[start : start + batch_size], inputs)
        parts = products((a, states[0]), (b, states[1]), batch)
        total = [
            each + np.ldexp(np.asarray(part, np.float64), exponent)
            for each, (part, exponent) in zip(total, parts, strict=True)
        ]
    assignment.require_finite(
        {("activations of", *sorted(axes.names(axis))): each for axis, each in zip(places, total, strict=True)}
    )
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    correlations = Correlations(spec, dict(zip(places, total, strict=True)))
    permutation, objective, counts = ascent.best_of(correlations, draws, restarts, free=correlations.sites)
    rest = set(spec.groups) - correlations.sites
    if rest:
        gains = Gains(spec, first, second)
        permutation, more = ascent.ascend(gains, permutation, rest, settled=False, free=rest)
        counts = ascent.add(counts, more)
    matching = assignment.finish(spec, permutation, b, states[1], objective, counts, check, tolerance)
    return matching._replace(by_weights=tuple(name for name in spec.groups if name in rest))


LARGEST = 4096
"""Units of all groups of one array of activations together; of larger ones the products would not fit."""


class Site(NamedTuple):
    """Activations that meet weights: all axes of the array that hold hidden units, taken as one."""

    contraction: int
    operand: int
    dimensions: tuple[int, ...]
    axis: Axis


def activation_sites(spec: PermutationSpec) -> list[Site]:
    """Returns the arrays of activations that are looked at, those of more than `LARGEST` units left out."""
    sites = {}
    for site in spec.sites:
        dimensions = tuple(i for i, axis in enumerate(site.operand_axes) if axes.groups(axis))
        axis = axes.product([site.operand_axes[i] for i in dimensions])
        if axis.size <= LARGEST or len(dimensions) == 1:
            sites[site.contraction, site.operand] = Site(site.contraction, site.operand, dimensions, axis)
    return list(sites.values())


def activations_at(spec: PermutationSpec, sites: list[Site]) -> Callable[[tuple[Params, State], Any], list[jax.Array]]:
    """Returns a function of a model, (params, state), and inputs: by site, (units, the rest) float32, to be called inside `jit`."""

    def run(params: Params, state: State, x: Any) -> jax.Array:
        return networks.evaluate(spec.network, params, state, x)

    def activations(model: tuple[Params, State], x: Any) -> list[jax.Array]:
        closed = jax.make_jaxpr(run)(*model, x)
        operands = list(jaxprs.contractions(closed, jax.tree.leaves((*model, x))))
        fronts = []
        for site in sites:
            if not _is_there(site, operands):
                raise ValueError(
                    "the network's program is another than the one its spec was traced from: make the spec by permutation_spec under the same "
                    "switches (jax.disable_jit unrolls loops), or use weight_matching, which does not run the network"
                )
            operand = operands[site.contraction][site.operand]
            front = jax.numpy.moveaxis(operand, site.dimensions, range(len(site.dimensions)))
            fronts.append(front.reshape(site.axis.size, -1).astype(np.float32))
        return fronts

    return activations


def _is_there(site: Site, operands: list[Any]) -> bool:
    if site.contraction >= len(operands):
        return False
    shape = np.shape(operands[site.contraction][site.operand])
    return len(shape) > max(site.dimensions) and math.prod(shape[i] for i in site.dimensions) == site.axis.size


Products = tuple[jax.Array, jax.Array]
"""Sums of products (size, size) float32, and the power of two () int32 that they are still to be multiplied with."""


def _products(spec: PermutationSpec) -> tuple[list[Axis], Callable[..., list[Products]]]:
    """The kinds of places where activations meet weights, and a compiled function of two models, ((params, state), ...), and inputs.

    The function gives for each kind the sums of products of all entries of both models.
    """
    sites = activation_sites(spec)
    places = list(dict.fromkeys(site.axis for site in sites))
    activations = activations_at(spec, sites)

    @jax.jit
    def products(a: tuple[Params, State], b: tuple[Params, State], x: Any) -> list[Products]:
        both = list(zip(sites, activations(a, x), activations(b, x), strict=True))
        return [_summed([(p, q) for site, p, q in both if site.axis == axis]) for axis in places]

    return places, products


def _summed(pairs: list[tuple[jax.Array, jax.Array]]) -> Products:
    """The sum of the products of the rows of both arrays of each pair."""
    first, second = (magnitudes.exponent_of(*arrays) for arrays in zip(*pairs, strict=True))
    products = [magnitudes.brought_near(p, first) @ magnitudes.brought_near(q, second).T for p, q in pairs]
    return sum(products[1:], products[0]), first + second

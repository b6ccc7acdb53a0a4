"""Gram matrices of what enters every dense layer, found in the network's jaxpr: by what it computes, not by names, of any framework."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import networks, program_cache, trees
from tna_jax.masks.operations import Params
from tna_jax.matching import jaxprs
from tna_jax.merging.method import Array
from tna_jax.networks import Network, State


class Gram(NamedTuple):
    """What enters a dense layer."""

    matrix: Array
    """(n, n) float64, the mean over inputs and positions of x x^T; n is the product of the sizes of `axes`."""
    axes: tuple[int, ...]
    """The axes of the layer's parameter that are summed with x, ascending; the others are outputs."""


class _Site(NamedTuple):
    """A product of activations with one parameter."""

    contraction: int
    operand: int
    """Which side the activations are."""
    summed: tuple[int, ...]
    """Axes of the activations, in the order of the parameter's axes."""
    leaf: int
    axes: tuple[int, ...]


class _Value(NamedTuple):
    shape: tuple[int, ...]
    data: bool
    weights: bool
    leaf: int | None = None
    axes: tuple[int, ...] = ()
    """A value that is a parameter, perhaps transposed: for each axis the parameter's."""


SAME = {"convert_element_type", "copy", "copy_p", "stop_gradient", "reduce_precision", "optimization_barrier"}


def gram_matrices(
    network: Network, params: Params, inputs: Any, *, state: State = (), batch_size: int = 256
) -> dict[str, Gram]:
    """Computes the Gram matrices of the inputs of every dense layer, by the path of its parameter.

    A dense layer is a matrix product of activations with one parameter as it stands or transposed. Parameters that are used
    in another way too (convolutions, tied embeddings, layers in a `scan`) are left out. One that is used several times gets
    the sum. All positions count, padding too.

    Args:
      network: any, in evaluation mode.
      params: of one model.
      inputs: (N, ...) in every leaf.
      state: of that model.
      batch_size: inputs per pass.

    Raises:
      ValueError: no inputs, or no dense layer.
    """
    count = len(jax.tree.leaves(inputs)[0])
    if not count:
        raise ValueError("Gram matrices need at least one input")
    names = [trees.name(path) for path, _ in trees.named_leaves(params)]
    first = jax.tree.map(lambda x: x[:batch_size], inputs)
    sites = _sites(jax.make_jaxpr(_function(network))(params, state, first), params)
    if not sites:
        raise ValueError("no dense layer was found: no parameter is multiplied with activations as it stands")
    products = _products(network, sites)
    totals: dict[int, Array] = {}
    rows: dict[int, int] = {}
    for start in range(0, count, batch_size):
        part = jax.tree.map(lambda x, at=start: x[at : at + batch_size], inputs)
        for site, (product, entries) in zip(sites, products(params, state, part), strict=True):
            totals[site.leaf] = totals.get(site.leaf, 0) + np.asarray(product, np.float64)
            rows[site.leaf] = rows.get(site.leaf, 0) + int(entries)
    axes = {site.leaf: site.axes for site in sites}
    return {names[leaf]: Gram(total / rows[leaf], axes[leaf]) for leaf, total in totals.items()}


def dense_layers(network: Network, params: Params, inputs: Any, *, state: State = ()) -> list[str]:
    """Returns the paths of the parameters of dense layers, as `gram_matrices` finds them; the network is traced, not run.

    Args:
      network: any, in evaluation mode.
      params: of one model.
      inputs: (B, ...) in every leaf.
      state: of that model.
    """
    names = [trees.name(path) for path, _ in trees.named_leaves(params)]
    sites = _sites(jax.make_jaxpr(_function(network))(params, state, inputs), params)
    return sorted({names[site.leaf] for site in sites})


def _function(network: Network) -> Callable[[Params, State, Any], jax.Array]:
    return lambda params, state, x: networks.evaluate(network, params, state, x)


@program_cache.by_contents()
def _products(network: Network, sites: list[_Site]) -> Callable[..., list[tuple[jax.Array, int]]]:
    """A compiled function of (params, state, inputs) to x x^T (n, n) float32 of every site, and how many x."""

    @jax.jit
    def products(params: Params, state: State, x: Any) -> list[tuple[jax.Array, int]]:
        closed = jax.make_jaxpr(_function(network))(params, state, x)
        operands = list(jaxprs.contractions(closed, jax.tree.leaves((params, state, x))))
        result = []
        for site in sites:
            values = operands[site.contraction][site.operand]
            front = jnp.moveaxis(values, site.summed, tuple(range(len(site.summed))))
            flat = front.reshape(int(np.prod(front.shape[: len(site.summed)])), -1).astype(jnp.float32)
            result.append((jnp.matmul(flat, flat.T, precision="highest"), flat.shape[1]))
        return result

    return products


def _sites(closed: Any, params: Params) -> list[_Site]:
    """Follows the parameters through the jaxpr of (params, state, inputs)."""
    leaves = jax.tree.leaves(params)
    arguments = [_Value(np.shape(leaf), False, True, i, tuple(range(np.ndim(leaf)))) for i, leaf in enumerate(leaves)]
    arguments += [_Value(tuple(v.aval.shape), True, False) for v in closed.jaxpr.invars[len(leaves) :]]
    sites: list[_Site] = []
    otherwise: set[int] = set()
    counted = 0

    def rule(equation: Any, values: list[_Value]) -> list[_Value]:
        nonlocal counted
        name, moved, site = equation.primitive.name, _Value((), False, False), None
        if name in jaxprs.CONTRACTIONS:
            site = _site(equation, values, counted)
            counted += 1
        if site is not None:
            sites.append(site)
        elif len(values) == 1 and values[0].leaf is not None and (name in SAME or name == "transpose"):
            order = equation.params["permutation"] if name == "transpose" else range(len(values[0].axes))
            moved = values[0]._replace(axes=tuple(values[0].axes[i] for i in order))
        else:
            otherwise.update(value.leaf for value in values if value.leaf is not None)
        data, weights = any(v.data for v in values), any(v.weights for v in values)
        return [_Value(tuple(v.aval.shape), data, weights, moved.leaf, moved.axes) for v in equation.outvars]

    def constant(value: Any) -> _Value:
        return _Value(np.shape(value), False, False)

    outputs = jaxprs.eval_jaxpr_with(closed.jaxpr, [constant(c) for c in closed.consts], arguments, rule, constant)
    otherwise.update(value.leaf for value in outputs if value.leaf is not None)
    for leaf in {site.leaf for site in sites}:
        if len({site.axes for site in sites if site.leaf == leaf}) > 1:
            otherwise.add(leaf)
    return [site for site in sites if site.leaf not in otherwise]


def _site(equation: Any, values: list[_Value], number: int) -> _Site | None:
    """The site of a matrix product without batch axes, of activations with a parameter; `None` for another operation."""
    sides = [i for i, value in enumerate(values) if value.leaf is not None]
    if equation.primitive.name != "dot_general" or len(sides) != 1 or not values[1 - sides[0]].data:
        return None
    kernel, activations = sides[0], 1 - sides[0]
    summed, batch = equation.params["dimension_numbers"]
    if batch[0]:
        return None
    pairs = sorted((values[kernel].axes[i], j) for i, j in zip(summed[kernel], summed[activations], strict=True))
    leaf = values[kernel].leaf
    assert leaf is not None
    return _Site(number, activations, tuple(j for _, j in pairs), leaf, tuple(i for i, _ in pairs))

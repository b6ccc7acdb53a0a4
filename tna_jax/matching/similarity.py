"""How alike the hidden units of two networks are: correlations of what they compute on the same inputs, unit by unit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import sharding
from tna_jax.masks import Params
from tna_jax.matching import activations
from tna_jax.matching.correlations import stretches
from tna_jax.matching.magnitudes import brought_near, exponent_of
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.networks import State

Model = tuple[Params, State]


class _Moments(NamedTuple):
    """Of n examples and positions: means and centered sums of products of two networks' units."""

    count: Any
    mean_a: Any
    mean_b: Any
    products: Any
    squares_a: Any
    squares_b: Any


Near = tuple[_Moments, Any, Any]
"""Moments of activations of both networks, and the powers of two by which they were divided before."""


def _moments(a: jax.Array, b: jax.Array) -> Near:
    """Of activations (units, n) each."""
    first, second = exponent_of(a), exponent_of(b)
    a, b = brought_near(a, first), brought_near(b, second)
    mean_a, mean_b = a.mean(1), b.mean(1)
    a, b = a - mean_a[:, None], b - mean_b[:, None]
    moments = _Moments(jnp.array(a.shape[1]), mean_a, mean_b, a @ b.T, (a * a).sum(1), (b * b).sum(1))
    return moments, first, second


def _of_true_size(near: Near) -> _Moments:
    moments, first, second = near
    powers = _Moments(0, first, second, first + second, 2 * first, 2 * second)
    return _Moments(
        *(np.ldexp(np.asarray(value, np.float64), power) for value, power in zip(moments, powers, strict=True))
    )


def _joined(first: _Moments | None, second: _Moments) -> _Moments:
    """The moments of two parts together (Chan, Golub and LeVeque), in float64."""
    if first is None:
        return second
    count = first.count + second.count
    share, weight = second.count / count, first.count * second.count / count
    a, b = second.mean_a - first.mean_a, second.mean_b - first.mean_b
    return _Moments(
        count,
        first.mean_a + a * share,
        first.mean_b + b * share,
        first.products + second.products + np.outer(a, b) * weight,
        first.squares_a + second.squares_a + a * a * weight,
        first.squares_b + second.squares_b + b * b * weight,
    )


class UnitCorrelations:
    """Correlations of the hidden units of two networks of one kind, on given inputs; compiled once for all pairs of them.

    Looked at are the places that activation matching looks at: where activations meet the next layer's weights. All places,
    examples and positions of a group count as one sample; heads are compared unit by unit, and units over all heads.

    Args:
      spec: of the networks.
      inputs: (N, ...) inputs, any pytree of arrays.
      batch_size: inputs per pass.

    Raises:
      ValueError: no inputs.
    """

    def __init__(self, spec: PermutationSpec, inputs: Any, *, batch_size: int = 500) -> None:
        if not len(jax.tree.leaves(inputs)[0]):
            raise ValueError("correlations need at least one input")
        self.spec, self.inputs, self.batch_size = spec, inputs, batch_size
        self._pass = _one_pass(spec)

    @sharding.outside_meshes
    def __call__(self, a: Params, b: Params, states: tuple[State, State] = ((), ())) -> dict[str, np.ndarray]:
        """Computes the correlations of every unit of `a` with every unit of `b`.

        Args:
          a, b: parameters of one model each.
          states: theirs.

        Returns:
          By group, (units of a, units of b) float64 in [-1, 1]; 0 where a unit never varies. Groups whose activations meet no
          weights (the units of queries and keys) are left out.
        """
        totals: dict[str, _Moments] = {}
        for start in range(0, len(jax.tree.leaves(self.inputs)[0]), self.batch_size):
            batch = jax.tree.map(lambda x, start=start: x[start : start + self.batch_size], self.inputs)
            for name, part in self._pass((a, states[0]), (b, states[1]), batch):
                totals[name] = _joined(totals.get(name), _of_true_size(part))
        return {name: _correlations(totals[name]) for name in self.spec.groups if name in totals}


def _one_pass(spec: PermutationSpec) -> Callable[[Model, Model, Any], list[tuple[str, Near]]]:
    sites = activations.activation_sites(spec)
    read = activations.activations_at(spec, sites)
    parts = [
        (i, name, part, positions)
        for i, site in enumerate(sites)
        for groups, positions in stretches(site.axis)
        for part, name in enumerate(groups)
        if name is not None
    ]

    @jax.jit
    def moments(a: Model, b: Model, x: Any) -> list[Near]:
        both = [read(model, x) for model in (a, b)]
        return [
            _moments(*(_units_first(values[i][positions.reshape(-1)], positions.shape, part) for values in both))
            for i, _, part, positions in parts
        ]

    names = [name for _, name, _, _ in parts]
    return lambda a, b, x: list(zip(names, moments(a, b, x), strict=True))


def _units_first(values: jax.Array, sizes: tuple[int, ...], part: int) -> jax.Array:
    """(units of one part, all else) of a stretch (product of the sizes, n)."""
    return jnp.moveaxis(values.reshape(*sizes, -1), part, 0).reshape(sizes[part], -1)


def _correlations(moments: _Moments) -> np.ndarray:
    spread_a, spread_b = np.sqrt(moments.squares_a), np.sqrt(moments.squares_b)
    scale = np.outer(spread_a, spread_b)
    result: np.ndarray = np.divide(moments.products, scale, out=np.zeros_like(scale), where=scale > 0)
    return result.clip(-1, 1)

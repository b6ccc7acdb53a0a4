"""Paths between models: the line, the plane and the simplex, as functions of pytrees.

All of them compute in float32 (float64 stays float64), cast back to the dtype of the parameters, and copy an entry that is
equal in all models instead of averaging it: anchors stay anchors, bit for bit. Derivatives are those of the plain formula, in
models, positions and weights, where entries are copied too. Leaves that are not floating-point are taken from the first model.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Integer, PyTree, Shaped

from tna_jax import sharding, trees

Tree = TypeVar("Tree")
"""The type of a model, which what lies between models has too."""

Scalar = float | Shaped[Array | np.ndarray | np.number, ""]


def line(a: Tree, b: Tree, alpha: Scalar) -> Tree:
    """Returns the model `(1 - alpha) * a + alpha * b`.

    Laws: `line(a, b, 0)` is `a` and `line(a, b, 1)` is `b`, bit for bit; `line(a, a, alpha)` is `a`.

    Args:
      a, b: pytrees of the same paths, shapes and dtypes.
      alpha: scalar, 0 at `a` and 1 at `b`; may be traced, may lie outside [0, 1].

    Returns:
      A pytree like `a`.

    Raises:
      ValueError: the trees do not fit each other, all differing paths are listed; or more than one alpha, or a complex one.
      TypeError: leaves that are not arrays (a whole Equinox module); all their paths are listed.

    >>> model = line({"w": jnp.zeros(2)}, {"w": jnp.array([1.0, 0.0])}, 0.25)
    >>> model["w"].tolist()
    [0.25, 0.0]
    """
    alpha = jnp.asarray(alpha)
    if alpha.ndim:
        raise ValueError(
            f"alpha is one number, got the shape {alpha.shape}; of many jax.vmap(lambda alpha: line(a, b, alpha))(alphas)"
        )
    if jnp.iscomplexobj(alpha):
        raise ValueError(f"alpha is a real number, 0 at the first model and 1 at the second; got {alpha.dtype}")
    return _combine(lambda x, y: _between(x, y, alpha.astype(_wide(x))), a, b)


@jax.custom_jvp
def _between(x: Array, y: Array, t: Array) -> Array:
    mixed = ((1 - t) * x.astype(t.dtype) + t * y.astype(t.dtype)).astype(x.dtype)
    return sharding.where((t == 0) | (x == y), x, sharding.where(t == 1, y, mixed))


@_between.defjvp
def _between_tangent(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Of the formula, not of the copies: the slope of a path is what it is at its ends too."""
    (x, y, t), (dx, dy, dt) = primals, tangents
    x, y, dx, dy = (z.astype(t.dtype) for z in (x, y, dx, dy))
    return _between(*primals), ((1 - t) * dx + t * dy + dt * (y - x)).astype(primals[0].dtype)


def plane(a: Tree, b: Tree, c: Tree, x: Scalar, y: Scalar) -> Tree:
    """Returns the model `a + x * (b - a) + y * (c - a)` on the plane through three models; `a` at (0, 0), `b` at (1, 0), `c` at (0, 1).

    Arguments and errors as in `line`. The corners are the models bit for bit.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    return simplex([a, b, c], jnp.stack([1 - x - y, x, y]))


def simplex(models: Sequence[Tree], weights: Shaped[Array | np.ndarray, "..."] | Sequence[Scalar]) -> Tree:
    """Returns the weighted sum of models; on the simplex the weights are non-negative with sum 1, which is not checked.

    Laws: a weight of 1 with zeros elsewhere gives that model, equal models give that model (whatever those of weight 0 hold),
    both bit for bit.

    Args:
      models: N >= 1 pytrees of the same paths, shapes and dtypes.
      weights: (N,) floats; may be traced.

    Returns:
      A pytree like the first model.

    Raises:
      ValueError: no models, another number of weights, or trees that do not fit.
    """
    weights = jnp.asarray(weights, jnp.result_type(float))
    if not models or weights.shape != (len(models),):
        raise ValueError(f"expected one weight for each of 1 or more models, got {weights.shape} for {len(models)}")
    return _combine(lambda *leaves: _weighted(jnp.stack(leaves), weights), *models)


def mixture(
    members: PyTree[Shaped[Array | np.ndarray, "M ..."]], weights: Float[Array, " M"]
) -> PyTree[Shaped[Array, "..."]]:
    """Computes what `simplex` does of a stacked tree: leaves (M, ...), weights (M,), result without the leading axis. Not checked."""

    def mix(leaf: Array | np.ndarray) -> Array:
        leaf = jnp.asarray(leaf)
        return _weighted(leaf, weights) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf[0]

    return jax.tree.map(mix, members)


def _weighted(leaves: Inexact[Array, " M *shape"], weights: Float[Array, " M"]) -> Inexact[Array, "*shape"]:
    """Sums (M, ...) by (M,) to (...): products summed, not multiplied as matrices, which accelerators do in less than float32."""
    return _summed(leaves, weights.astype(jnp.finfo(_wide(leaves)).dtype))


@jax.custom_jvp
def _summed(leaves: Array, weights: Array) -> Array:
    index, alone = corner(weights)
    first, w = sharding.entry(leaves, index), weights.reshape(-1, *(1,) * (leaves.ndim - 1))
    same = ((leaves == first[None]) | (w == 0)).all(0) & (weights != 0).any()
    return sharding.where(alone | same, first, _parts(leaves, w).sum(0).astype(leaves.dtype))


@_summed.defjvp
def _summed_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (leaves, weights), (dleaves, dweights) = primals, tangents
    w, dw = (x.reshape(-1, *(1,) * (leaves.ndim - 1)) for x in (weights, dweights))
    wide = _wide(leaves)
    tangent = _parts(dleaves, w).sum(0) + (dw.astype(wide) * leaves.astype(wide)).sum(0)
    return _summed(*primals), tangent.astype(leaves.dtype)


def _parts(leaves: Array, w: Array) -> Array:
    """Products with the weights; a model of weight 0 may hold anything."""
    wide = _wide(leaves)
    return sharding.where(w == 0, jnp.zeros((), wide), w.astype(wide) * leaves.astype(wide))


def corner(weights: Float[Array, " M"]) -> tuple[Integer[Array, ""], Shaped[Array, ""]]:
    """Returns the index of the largest of (M,) weights, and whether it is 1 and all others 0: whether the point is that model."""
    index = jnp.argmax(weights)
    return index, (weights[index] == 1) & (jnp.count_nonzero(weights) == 1)


def _wide(leaf: Array) -> np.dtype[Any]:
    """The dtype of sums: float32 at least."""
    return np.promote_types(leaf.dtype, np.float32) if leaf.dtype.itemsize >= 4 else np.dtype(np.float32)


def _combine(mix: Callable[..., Array], first: Tree, *rest: Tree) -> Tree:
    trees.require_arrays(first, "what lies between models is computed array by array")
    others = [trees.align(tree, first, what="first model", subject="other model", same_dtypes=True) for tree in rest]
    leaves = [
        mix(*(sharding.match(leaf, column[0]) for leaf in column))
        if jnp.issubdtype(jnp.result_type(column[0]), jnp.inexact)
        else column[0]
        for column in zip(jax.tree.leaves(first), *others, strict=True)
    ]
    return trees.like(first, leaves)

"""Paths between models: the line, the plane and the simplex, as functions of pytrees.

All of them compute in float32 (float64 stays float64), cast back to the dtype of the parameters, and copy an entry that is
equal in all models instead of averaging it: anchors stay anchors, bit for bit. Leaves that are not floating-point are
taken from the first model.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import paths
from tna_jax.masks import Params

Scalar = float | jax.Array


def line(a: Params, b: Params, alpha: Scalar) -> Params:
    """The model `(1 - alpha) * a + alpha * b`.

    Laws: `line(a, b, 0)` is `a` and `line(a, b, 1)` is `b`, bit for bit; `line(a, a, alpha)` is `a`.

    Args:
      a, b: pytrees of the same paths, shapes and dtypes.
      alpha: scalar, 0 at `a` and 1 at `b`; may be traced, may lie outside [0, 1].

    Returns:
      A pytree like `a`.

    Raises:
      ValueError: the trees do not fit each other; all differing paths are listed.
    """
    alpha = jnp.asarray(alpha)

    def mix(x, y):
        wide = _wide(x)
        t = alpha.astype(wide)
        mixed = ((1 - t) * x.astype(wide) + t * y.astype(wide)).astype(x.dtype)
        return jnp.where((t == 0) | (x == y), x, jnp.where(t == 1, y, mixed))

    return _combine(mix, a, b)


def plane(a: Params, b: Params, c: Params, x: Scalar, y: Scalar) -> Params:
    """The model `a + x * (b - a) + y * (c - a)` on the plane through three models; `a` at (0, 0), `b` at (1, 0), `c` at (0, 1).

    Arguments and errors as in `line`. The corners are the models bit for bit.
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    return simplex([a, b, c], jnp.stack([1 - x - y, x, y]))


def simplex(models: Sequence[Params], weights: jax.Array | Sequence[float]) -> Params:
    """The weighted sum of models; on the simplex the weights are non-negative with sum 1, which is not checked.

    Laws: a weight of 1 with zeros elsewhere gives that model, equal models give that model, both bit for bit.

    Args:
      models: N >= 1 pytrees of the same paths, shapes and dtypes.
      weights: (N,) floats.

    Raises:
      ValueError: no models, another number of weights, or trees that do not fit.
    """
    weights = jnp.asarray(weights, jnp.float32)
    if not models or weights.shape != (len(models),):
        raise ValueError(f"expected one weight for each of 1 or more models, got {weights.shape} for {len(models)}")
    return _combine(lambda *leaves: _weighted(jnp.stack(leaves), weights), *models)


def mixture(members: Params, weights: jax.Array) -> Params:
    """As `simplex`, of a stacked tree: leaves (M, ...), weights (M,), result without the leading axis. Not checked."""

    def mix(leaf):
        leaf = jnp.asarray(leaf)
        return _weighted(leaf, weights) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf[0]

    return jax.tree.map(mix, members)


def _weighted(leaves: jax.Array, weights: jax.Array) -> jax.Array:
    """(M, ...) by (M,) to (...): products summed, not multiplied as matrices, which accelerators do in less than float32."""
    wide = _wide(leaves)
    w = weights.astype(wide)
    w = w.reshape(-1, *(1,) * (leaves.ndim - 1))
    parts = jnp.where(w == 0, jnp.zeros((), wide), w * leaves.astype(wide))  # a model of weight 0 may hold anything
    index, alone = corner(weights)
    mixed = jnp.where((leaves == leaves[:1]).all(0), leaves[0], parts.sum(0).astype(leaves.dtype))
    return jnp.where(alone, leaves[index], mixed)


def corner(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The index of the largest of (M,) weights, and whether it is 1 and all others 0: whether the point is that model."""
    index = jnp.argmax(weights)
    return index, (weights[index] == 1) & (jnp.count_nonzero(weights) == 1)


def _wide(leaf: jax.Array):
    return np.promote_types(leaf.dtype, np.float32) if leaf.dtype.itemsize >= 4 else jnp.float32


def _combine(mix, first: Params, *rest: Params) -> Params:
    others = [paths.align(tree, first, what="first model", subject="other model") for tree in rest]
    leaves = [
        mix(*map(jnp.asarray, column)) if jnp.issubdtype(jnp.result_type(column[0]), jnp.inexact) else column[0]
        for column in zip(jax.tree.leaves(first), *others, strict=True)
    ]
    return paths.like(first, leaves)

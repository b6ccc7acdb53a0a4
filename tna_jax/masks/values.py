"""Values of anchors: zero, scaled, drawn anew, or another model's. What trains keeps every bit."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import sharding, trees
from tna_jax.masks.draws import uniform
from tna_jax.masks.operations import Mask, Params, is_anchored

Tree = TypeVar("Tree")
"""The type of a model, which it keeps."""


def prune(params: Tree, mask: Mask) -> Tree:
    """Sets anchored entries to zero: random pruning, the paper's baseline (`w0 * m`, then train under the same mask).

    A soft mask multiplies. Dtypes are kept. Raises ValueError where the mask does not fit (see `share_anchors`).
    """
    leaves = [
        sharding.where(m, p, jnp.zeros_like(p))
        if jnp.asarray(m).dtype == bool
        else p * sharding.match(m, p).astype(p.dtype)
        for m, p in zip(trees.align(mask, params), jax.tree.leaves(params), strict=True)
    ]
    return trees.like(params, leaves)


def scale_anchors(params: Tree, mask: Mask, scale: float, *, scales: Mapping[str, float] | None = None) -> Tree:
    """Multiplies anchored entries by `scale`; the trainable ones stay, bit for bit. Dtypes are kept.

    Of initial values with standard deviation s this makes anchors with standard deviation `scale * s`: how much anchors weigh
    against what is trained (a choice of this project; arXiv 2402.01342 anchors initial values, scale 1). Entries under a soft
    anchor are scaled too.

    Args:
      params: a pytree of floating-point arrays.
      mask: bool or soft mask of the same paths.
      scale: the factor, at least 0.
      scales: factors of some leaves instead, by regular expressions of the path, of which a leaf may match one.

    Raises:
      ValueError: the mask does not fit (see `share_anchors`), a scale that is negative or not finite, a pattern that matches no leaf,
        or a leaf that two patterns match.
    """
    factors = _scales_of(params, scale, scales)
    leaves = [leaf * jnp.asarray(factors[path], jnp.asarray(leaf).dtype) for path, leaf in trees.parameters(params)]
    return share_anchors(params, trees.like(params, leaves), mask)


def draw_anchors(
    key: jax.Array, params: Tree, mask: Mask, scale: float, *, scales: Mapping[str, float] | None = None
) -> Tree:
    """Draws anchored entries anew from N(0, scale^2), all leaves alike but those of `scales`; the trainable ones stay, bit for bit.

    The fixed entries of W-asymmetric networks (Lim et al. 2024, arXiv 2405.20231), there with scale 0.25 to 3. As for a mask,
    the values of a leaf depend on the key, its path and its shape alone; those of two scales are proportional. Arguments and errors
    as in `scale_anchors`.
    """
    factors = _scales_of(params, scale, scales)
    drawn = [sharding.place(_normal(key, path, leaf, factors[path]), leaf) for path, leaf in trees.parameters(params)]
    return share_anchors(params, trees.like(params, drawn), mask)


def _normal(key: jax.Array, path: trees.KeyPath, leaf: jax.Array, scale: float) -> jax.Array:
    """Of the leaf's shape and type; both parts of a complex number have half the variance, as in `jax.random.normal`."""

    def part(path: trees.KeyPath, scale: float) -> jax.Array:
        normal: jax.Array = jax.scipy.special.ndtri(_inside(uniform(key, path, leaf.shape))) * np.float32(scale)
        return normal

    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        half = scale / np.sqrt(2)
        return jax.lax.complex(part(path, half), part((*path, "imaginary"), half)).astype(leaf.dtype)
    return part(path, scale).astype(leaf.dtype)


def _inside(uniform: jax.Array) -> jax.Array:
    """Uniform float32 in [0, 1) moved off 0, where the normal quantile is infinite."""
    return jnp.maximum(uniform, np.float32(2.0**-24))


def _scales_of(params: Params, scale: float, scales: Mapping[str, float] | None) -> dict[trees.KeyPath, float]:
    """The scale of each leaf."""
    paths = [path for path, _ in trees.parameters(params)]
    factors = dict.fromkeys(paths, scale) | trees.by_path(scales or {}, paths, "scales")
    for factor in factors.values():
        if not 0 <= factor < np.inf:
            raise ValueError(f"the scale of anchors must be finite and at least 0, got {factor}")
    return factors


def share_anchors(params: Tree, source: Params, mask: Mask) -> Tree:
    """Copies the anchored entries of `source` into `params`, bit for bit; the trainable ones stay.

    This is how models of different initial values come to share anchors (a choice of this project: arXiv 2402.01342 starts
    its models from one initialization). Entries under a soft anchor (multiplier below 1) are copied too.

    Args:
      params: pytree of arrays, the model to change.
      source: pytree of the same paths, shapes and dtypes, the model whose anchors are taken.
      mask: bool or soft mask of the same paths.

    Returns:
      A pytree like `params`.

    Raises:
      ValueError: paths, shapes or dtypes differ; all differing paths are listed.
    """
    keep, other, named = (
        trees.align(mask, params),
        trees.align(source, params, subject="source"),
        trees.parameters(params),
    )
    dtypes = [
        f"{trees.name(path)} ({p.dtype}, source {q.dtype})"
        for (path, p), q in zip(named, other, strict=True)
        if p.dtype != q.dtype
    ]
    if dtypes:
        raise ValueError(f"anchors can only be shared between equal dtypes; these differ: {', '.join(dtypes)}")
    leaves = [bitwise_where(is_anchored(m), q, p) for m, q, (_, p) in zip(keep, other, named, strict=True)]
    return trees.like(params, leaves)


def bitwise_where(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Selects as `jnp.where` does and keeps every bit: the CPU selects 16-bit floats as float32, which loses the payload of a NaN."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    return sharding.where(chosen, a, b) if a.dtype.itemsize > 2 else _select_bits(chosen, a, b)


@jax.custom_jvp
def _select_bits(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return sharding.where(chosen, a.view(bits), b.view(bits)).view(a.dtype)


@_select_bits.defjvp
def _select_tangent(primals: Sequence[jax.Array], tangents: Sequence[jax.Array]) -> tuple[Any, Any]:
    """Bits have no derivative; what is chosen has."""
    return _select_bits(*primals), sharding.where(primals[0], *tangents[1:])

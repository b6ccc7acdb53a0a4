"""Anchor masks: which weights stay fixed while a network trains.

A mask is a pytree like the parameters. Its leaves are bool: `True` = trainable, `False` = anchored (fixed). Float leaves
in [0, 1] are soft anchors, multipliers of the update. **`ratio` is the share of `False`, of anchored entries**; others use
the opposite convention. Source: Li et al., arXiv 2402.01342 (TNA-PFN, partially fixed neurons: one Bernoulli mask over
every parameter tensor, shared by all models).

The bits of a leaf depend on the key, the key path of the leaf and its shape, and on nothing else: not on the other
leaves, their order, the framework of the tree, devices, processes, `jit` or `vmap`.

    mask = masks.bernoulli(jax.random.key(0), params, ratio=0.4)
    optimizer = anchored(optax.sgd(0.1), mask)
"""

import functools
import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.trees import KeyPath, PathFilter, Tree

Mask = Tree
"""A pytree like the parameters with bool leaves (`True` = trainable) or float leaves in [0, 1] (soft anchors)."""

Params = Tree
"""A pytree of floating-point arrays."""


def bernoulli(key: jax.Array, params: Params, ratio: float | jax.Array, where: PathFilter | None = None) -> Mask:
    """Anchors every entry of `params` with probability `ratio`, independently (TNA-PFN, arXiv 2402.01342).

    Args:
      key: a PRNG key. Masks of one key are nested: a larger ratio anchors the same entries and more.
      params: a pytree of floating-point arrays of any shape; only paths and shapes are read, so shapes from
        `jax.eval_shape` do as well.
      ratio: the share of anchored entries to expect, in [0, 1]; a traced scalar is allowed (a sweep under `vmap`).
      where: which leaves to draw in, a regular expression or a predicate of the path; the others stay trainable.

    Returns:
      A mask with the structure of `params`, bool leaves of the same shapes.

    Raises:
      ValueError: `ratio` outside [0, 1], or `where` selects nothing.
      TypeError: `params` holds something other than floating-point arrays.
    """
    _check_ratio(ratio)
    threshold = jnp.asarray(ratio, jnp.float32)
    return _draw(params, where, lambda path, leaf: _uniform(key, path, leaf.shape) >= threshold)


def exact(key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None) -> Mask:
    """Anchors exactly `round(ratio * size)` entries of each leaf, chosen uniformly (halves round up).

    The exact count is a choice of this project; the paper draws each entry by itself. Arguments, result and errors as
    in `bernoulli`, but `ratio` must be a Python number.
    """
    _check_ratio(ratio, concrete=True)
    return _draw(params, where, lambda path, leaf: _keep(key, path, leaf.shape, ratio))


def neurons(key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None) -> Mask:
    """Anchors exactly `round(ratio * units)` whole units of each layer: incoming weights, bias and norm parameters.

    Leaves of one module (siblings in the tree) share their units, so the bits depend on the key, the module's path and
    the unit shape. A leaf named `weight` with two or more axes (Equinox, PyTorch layout) has its units on the first axis,
    every other leaf on the last axes: as many as its sibling `bias` has (attention projections have two), else one.
    Drawing units exactly, and over all layers, is a choice of this project. Arguments, result and errors as in `exact`.
    """
    _check_ratio(ratio, concrete=True)
    biases = {path[:-1]: leaf.shape for path, leaf in trees.parameters(params) if path[-1] == "bias"}

    def leaf_mask(path: KeyPath, leaf: jax.Array) -> jax.Array:
        if leaf.ndim == 0:
            return _keep(key, path, (), ratio)
        module, bias = path[:-1], biases.get(path[:-1], ())
        if (path[-1] == "weight" and leaf.ndim > 1) or (path[-1] == "bias" and set(leaf.shape[1:]) == {1}):
            keep = _keep(key, module, leaf.shape[:1], ratio)  # Equinox: (out, in, ...), convolution bias (out, 1, 1)
            return jnp.broadcast_to(keep.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf.shape)
        units = bias if bias and leaf.shape[-len(bias) :] == bias else leaf.shape[-1:]
        return jnp.broadcast_to(_keep(key, module, units, ratio), leaf.shape)

    return _draw(params, where, leaf_mask)


def soft(mask: Mask, multiplier: float) -> Mask:
    """Turns anchors into soft ones: `False` becomes `multiplier`, `True` becomes 1 (float32 leaves).

    Raises:
      ValueError: `multiplier` outside [0, 1].
      TypeError: `mask` is not a bool mask.
    """
    if not 0 <= multiplier <= 1:
        raise ValueError(f"the multiplier of soft anchors must lie in [0, 1], got {multiplier}")
    _require_bool(mask)
    return jax.tree.map(lambda m: jnp.where(m, np.float32(1), np.float32(multiplier)), mask)


def complement(mask: Mask) -> Mask:
    """Swaps anchored and trainable entries (soft: `1 - m`). Law: `complement(complement(m)) == m` for bool masks."""
    return jax.tree.map(lambda m: ~jnp.asarray(m) if jnp.asarray(m).dtype == bool else 1 - m, mask)


def anchored_ratio(mask: Mask) -> jax.Array:
    """The share of anchored entries (`False`, or a multiplier below 1) over the whole tree: a float32 scalar in [0, 1].

    Raises:
      ValueError: a mask without entries.
    """
    leaves = jax.tree.leaves(mask)
    total = sum(np.size(m) for m in leaves)
    if total == 0:
        raise ValueError("an empty mask has no ratio")
    counts = [jnp.sum(_anchored(m), dtype=jnp.int32).astype(jnp.float32) for m in leaves]
    return sum(counts, start=jnp.float32(0)) / np.float32(total)


def prune(params: Params, mask: Mask) -> Params:
    """Sets anchored entries to zero: random pruning, the paper's baseline (`w0 * m`, then train under the same mask).

    A soft mask multiplies. Dtypes are kept. Raises ValueError where the mask does not fit (see `share_anchors`).
    """
    leaves = [
        jnp.where(m, p, jnp.zeros_like(p)) if jnp.asarray(m).dtype == bool else p * jnp.asarray(m, p.dtype)
        for m, p in zip(trees.align(mask, params), jax.tree.leaves(params), strict=True)
    ]
    return trees.like(params, leaves)


def scale_anchors(params: Params, mask: Mask, scale: float) -> Params:
    """Multiplies anchored entries by `scale`; the trainable ones stay, bit for bit. Dtypes are kept.

    Of initial values with standard deviation s this makes anchors with standard deviation `scale * s`: how much anchors weigh
    against what is trained (a choice of this project; arXiv 2402.01342 anchors initial values, scale 1). Entries under a soft
    anchor are scaled too.

    Raises:
      ValueError: the mask does not fit (see `share_anchors`), or `scale` is negative or not finite.
    """
    _check_scale(scale)
    scaled = jax.tree.map(lambda p: p * jnp.asarray(scale, jnp.asarray(p).dtype), params)
    return share_anchors(params, scaled, mask)


def draw_anchors(key: jax.Array, params: Params, mask: Mask, scale: float) -> Params:
    """Draws anchored entries anew from N(0, scale^2), all leaves alike; the trainable ones stay, bit for bit.

    The fixed entries of W-asymmetric networks (Lim et al. 2024, arXiv 2405.20231), there with scale 0.25 to 3. As for a mask,
    the values of a leaf depend on the key, its path and its shape alone. Errors as in `scale_anchors`.
    """
    _check_scale(scale)
    drawn = [
        (jax.scipy.special.ndtri(_inside(_uniform(key, path, leaf.shape))) * np.float32(scale)).astype(leaf.dtype)
        for path, leaf in trees.parameters(params)
    ]
    return share_anchors(params, trees.like(params, drawn), mask)


def _inside(uniform: jax.Array) -> jax.Array:
    """Uniform float32 in [0, 1) moved off 0, where the normal quantile is infinite."""
    return jnp.maximum(uniform, np.float32(2.0**-24))


def _check_scale(scale: float) -> None:
    if not 0 <= scale < np.inf:
        raise ValueError(f"the scale of anchors must be finite and at least 0, got {scale}")


def share_anchors(params: Params, source: Params, mask: Mask) -> Params:
    """Copies the anchored entries of `source` into `params`, bit for bit; the trainable ones stay.

    This is how models of different initial values come to share anchors (a choice of this project: arXiv 2402.01342 starts
    its models from one initialisation). Entries under a soft anchor (multiplier below 1) are copied too.

    Args:
      params: pytree of arrays, the model to change.
      source: pytree of the same paths, shapes and dtypes, the model whose anchors are taken.
      mask: bool or soft mask of the same paths.

    Returns:
      A pytree like `params`.

    Raises:
      ValueError: paths, shapes or dtypes differ; all differing paths are listed.
    """
    keep, other, own = (
        trees.align(mask, params),
        trees.align(source, params, subject="source"),
        trees.parameters(params),
    )
    dtypes = [
        f"{trees.name(path)} ({p.dtype}, source {q.dtype})"
        for (path, p), q in zip(own, other, strict=True)
        if p.dtype != q.dtype
    ]
    if dtypes:
        raise ValueError(f"anchors can only be shared between equal dtypes; these differ: {', '.join(dtypes)}")
    leaves = [bitwise_where(_anchored(m), q, p) for m, q, (_, p) in zip(keep, other, own, strict=True)]
    return trees.like(params, leaves)


def bitwise_where(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.where` that keeps every bit: the CPU selects 16-bit floats as float32, which loses the payload of a NaN."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    return jnp.where(chosen, a, b) if a.dtype.itemsize > 2 else _select_bits(chosen, a, b)


@jax.custom_jvp
def _select_bits(chosen: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    bits = np.dtype(f"u{a.dtype.itemsize}")
    return jnp.where(chosen, a.view(bits), b.view(bits)).view(a.dtype)


@_select_bits.defjvp
def _select_tangent(primals, tangents):
    """Bits have no derivative; what is chosen has."""
    return _select_bits(*primals), jnp.where(primals[0], *tangents[1:])


def _anchored(mask_leaf: jax.Array) -> jax.Array:
    m = jnp.asarray(mask_leaf)
    return ~m if m.dtype == bool else m < 1


def _draw(params: Params, where: PathFilter | None, leaf_mask) -> Mask:
    named = trees.parameters(params)
    chosen = trees.selector(where, [path for path, _ in named])
    leaves = [leaf_mask(path, leaf) if chosen(path) else jnp.ones(leaf.shape, bool) for path, leaf in named]
    return trees.like(params, leaves)


def _uniform(key: jax.Array, path: KeyPath, shape: tuple[int, ...]) -> jax.Array:
    """Uniform float32 in [0, 1), a function of (key, path, shape) alone: 64 bits of SHA-256 of the path are folded in."""
    digest = hashlib.sha256("\0".join(path).encode()).digest()
    return _draws(key, np.frombuffer(digest[:8], "<u4"), shape)


@functools.partial(jax.jit, static_argnums=2)  # one small program for each shape, however many leaves have it
def _draws(key: jax.Array, words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Drawn flat, which gives the same numbers and compiles many times faster."""
    own = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
    with jax.threefry_partitionable(True):
        return jax.random.uniform(own, (math.prod(shape),), jnp.float32).reshape(shape)


def _keep(key: jax.Array, path: KeyPath, shape: tuple[int, ...], ratio: float) -> jax.Array:
    """Bool of `shape`, exactly `floor(ratio * size + 1/2)` entries False: those with the smallest draws."""
    size = int(np.prod(shape))
    order = jnp.argsort(_uniform(key, path, shape).ravel())
    return jnp.ones(size, bool).at[order[: int(ratio * size + 0.5)]].set(False).reshape(shape)


def _check_ratio(ratio: float | jax.Array, concrete: bool = False) -> None:
    if isinstance(ratio, jax.core.Tracer):
        if concrete:
            raise TypeError("an exact count needs a Python number as ratio; draw with bernoulli to trace the ratio")
        return
    if not 0 <= float(ratio) <= 1:
        raise ValueError(
            f"ratio is the share of anchored entries and must lie in [0, 1], got {ratio}{percent(float(ratio))}"
        )


def percent(ratio: float) -> str:
    """What to add to an error about a ratio that was meant as a percentage: `; did you mean 0.4?` for 40, else nothing."""
    return f"; did you mean {ratio / 100:g}?" if 2 <= ratio <= 100 else ""


def _require_bool(mask: Mask) -> None:
    bad = [trees.name(path) for path, m in trees.named_leaves(mask) if jnp.asarray(m).dtype != bool]
    if bad:
        raise TypeError(f"expected a bool mask, but these leaves are not bool: {', '.join(bad)}")

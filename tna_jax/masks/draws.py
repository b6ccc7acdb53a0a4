"""Draws masks: each weight by itself, an exact count of each leaf, or whole units.

The bits of a leaf depend on the key, the key path of the leaf and its shape, and on nothing else: not on the other
leaves, their order, the framework of the tree, devices, processes, `jit` or `vmap`.
"""

import functools
import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from tna_jax import sharding, trees
from tna_jax.masks.operations import Mask, Params
from tna_jax.trees import KeyPath, PathFilter


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
    check_ratio(ratio)
    threshold = jnp.asarray(ratio, jnp.float32)
    return _draw(params, where, lambda path, leaf: uniform(key, path, leaf.shape, like=leaf) >= threshold)


def exact(key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None) -> Mask:
    """Anchors exactly `round(ratio * size)` entries of each leaf, chosen uniformly (halves round up).

    The exact count is a choice of this project; the paper draws each entry by itself. Arguments, result and errors as
    in `bernoulli`, but `ratio` must be a Python number.
    """
    check_ratio(ratio, concrete=True)
    return _draw(params, where, lambda path, leaf: _keep(key, path, leaf.shape, ratio))


def neurons(key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None) -> Mask:
    """Anchors exactly `round(ratio * units)` whole units of each layer: incoming weights, bias and norm parameters.

    Leaves of one module (siblings in the tree) share their units, so the bits depend on the key, the module's path and
    the unit shape. A leaf named `weight` with two or more axes (Equinox, PyTorch layout) has its units on the first axis,
    every other leaf on the last axes: as many as its sibling `bias` has (attention projections have two), else one.
    Drawing units exactly, and over all layers, is a choice of this project. Arguments, result and errors as in `exact`.
    """
    check_ratio(ratio, concrete=True)
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


DRAWS: dict[str, Callable[..., Mask]] = {"bernoulli": bernoulli, "exact": exact, "neurons": neurons}
"""The ways to draw by name, each `(key, params, ratio, where) -> mask`."""


def _draw(params: Params, where: PathFilter | None, leaf_mask: Callable[[KeyPath, jax.Array], jax.Array]) -> Mask:
    named = trees.parameters(params)
    chosen = trees.selector(where, [path for path, _ in named])
    leaves = [leaf_mask(path, leaf) if chosen(path) else jnp.ones(leaf.shape, bool) for path, leaf in named]
    return trees.like(params, [sharding.place(m, leaf) for m, (_, leaf) in zip(leaves, named, strict=True)])


def uniform(key: jax.Array, path: KeyPath, shape: tuple[int, ...], like: Any = None) -> jax.Array:
    """Returns uniform float32 in [0, 1), a function of (key, path, shape) alone: 64 bits of SHA-256 of the path are folded in.

    Laid out as `like`, if that is given: each device draws its part.
    """
    digest = hashlib.sha256("\0".join(path).encode()).digest()
    layout = sharding.sharding_of(like) if shape else None
    if layout is None:
        drawn: jax.Array = _draws(key, np.frombuffer(digest[:8], "<u4"), shape)
    else:
        drawn = _sharded_draws(layout)(_anywhere(key), np.frombuffer(digest[:8], "<u4"), shape)
    return drawn


def _anywhere(key: jax.Array) -> jax.Array:
    """A concrete key as an array that belongs to no device, so that it goes with parameters on any."""
    if isinstance(key, jax.core.Tracer):
        return key
    with sharding.no_mesh(), jax.ensure_compile_time_eval():
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return jnp.asarray(np.asarray(key))
        words = jnp.asarray(np.asarray(jax.random.key_data(key)))
        unplaced: jax.Array = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
        return unplaced


@functools.lru_cache(maxsize=512)
def _sharded_draws(layout: NamedSharding) -> Callable[..., jax.Array]:
    """As `_draws`, laid out over a mesh: the layout of an array, or (`jax.sharding.AbstractMesh`) of a traced one."""
    if not isinstance(layout.mesh, Mesh):
        return functools.partial(_draws, layout=layout)
    program = jax.jit(lambda key, words, shape: _draws(key, words, shape, True), static_argnums=2, out_shardings=layout)

    def draw(key: jax.Array, words: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
        with sharding.no_mesh():
            drawn: jax.Array = program(key, words, shape)
        return drawn

    return draw


# One small program for each shape, however many leaves have it.
@functools.partial(jax.jit, static_argnames=("shape", "layout"))
def _draws(
    key: jax.Array, words: jax.Array, shape: tuple[int, ...], layout: NamedSharding | bool | None = None
) -> jax.Array:
    """Drawn flat, which gives the same numbers and compiles many times faster; in its shape where devices draw parts of it (`layout`)."""
    leaf_key = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
    with jax.threefry_partitionable(True):
        if layout or not jax.sharding.get_abstract_mesh().empty:
            out = layout if isinstance(layout, NamedSharding) else None
            return jax.random.uniform(leaf_key, shape, jnp.float32, out_sharding=out)
        return jax.random.uniform(leaf_key, (math.prod(shape),), jnp.float32).reshape(shape)


def _keep(key: jax.Array, path: KeyPath, shape: tuple[int, ...], ratio: float) -> jax.Array:
    """Bool of `shape`, exactly `floor(ratio * size + 1/2)` entries False: those with the smallest draws."""
    size = int(np.prod(shape))
    order = jnp.argsort(uniform(key, path, shape).ravel())
    return jnp.ones(size, bool).at[order[: int(ratio * size + 0.5)]].set(False).reshape(shape)


def check_ratio(ratio: float | jax.Array, concrete: bool = False) -> None:
    """Raises ValueError for a ratio outside [0, 1], and TypeError for a traced one where a number is needed (`concrete`)."""
    if isinstance(ratio, jax.core.Tracer):
        if concrete:
            raise TypeError("an exact count needs a Python number as ratio; draw with bernoulli to trace the ratio")
        return
    if not 0 <= float(ratio) <= 1:
        raise ValueError(
            f"ratio is the share of anchored entries and must lie in [0, 1], got {ratio}{percent(float(ratio))}"
        )


def percent(ratio: float) -> str:
    """Returns what to add to an error about a ratio that was meant as a percentage: `; did you mean 0.4?` for 40, else nothing."""
    return f"; did you mean {ratio / 100:g}?" if 2 <= ratio <= 100 else ""

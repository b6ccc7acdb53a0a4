"""Draws masks: each weight by itself, an exact count of each leaf, or whole units.

The bits of a leaf depend on the key, the key path of the leaf and its shape, and on nothing else: not on the other
leaves, their order, the framework of the tree, devices, processes, `jit` or `vmap`.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from tna_jax import host_bits, prng, sharding, trees
from tna_jax.masks.operations import Mask, Params
from tna_jax.masks.places import Draw, UnitSpec, as_place, check_shapes, traced_place
from tna_jax.masks.units import refuse, units_by_layout
from tna_jax.trees import KeyPath, PathFilter


def bernoulli(
    key: jax.Array, params: Params, ratio: float | jax.Array, where: PathFilter | None = None, *, shared: bool = False
) -> Mask:
    """Anchors every entry of `params` with probability `ratio`, independently (TNA-PFN, arXiv 2402.01342).

    Args:
      key: a PRNG key. Masks of one key are nested: a larger ratio anchors the same entries and more.
      params: a pytree of floating-point arrays of any shape; only paths and shapes are read, so shapes from
        `jax.eval_shape` do as well. Of models stacked along a leading axis (`vmap`, `nnx.vmap`, ensembles) every model gets
        anchors of its own, and their average keeps none: say `shared`, or draw for one model.
      ratio: the share of anchored entries to expect, in [0, 1]; a traced scalar is allowed (a sweep under `vmap`).
      where: which leaves to draw in, a regular expression or a predicate of the path; the others stay trainable.
      shared: the leaves' first axis counts models, and all get the mask that is drawn for one of them.

    Returns:
      A mask with the structure of `params`, bool leaves of the same shapes.

    Raises:
      ValueError: `ratio` outside [0, 1], `where` selects nothing, or running statistics (Linen's variables with `batch_stats`
        beside `params`, an NNX state of `BatchStat`), or leaves without a common first axis under `shared`.
      TypeError: `params` holds something other than floating-point arrays.
    """
    check_ratio(ratio)
    threshold = jnp.asarray(ratio, jnp.float32) if isinstance(ratio, jax.Array) else np.float32(ratio)
    return _draw_entries(key, params, where, shared, lambda u: u >= threshold, in_place=True)


def exact(
    key: jax.Array, params: Params, ratio: float, where: PathFilter | None = None, *, shared: bool = False
) -> Mask:
    """Anchors exactly `round(ratio * size)` entries of each leaf, chosen uniformly (halves round up).

    The exact count is a choice of this project; the paper draws each entry by itself. Arguments, result and errors as
    in `bernoulli`, but `ratio` must be a Python number.
    """
    check_ratio(ratio, concrete=True)
    return _draw_entries(key, params, where, shared, lambda u: _keep(u, ratio))


def neurons(
    key: jax.Array,
    params: Params,
    ratio: float,
    where: PathFilter | None = None,
    *,
    spec: UnitSpec | None = None,
    shared: bool = False,
    apart: bool = False,
) -> Mask:
    """Anchors exactly `round(ratio * units)` whole units of each layer: incoming weights, bias and norm parameters.

    Permuting anchored units among themselves, or trainable ones, as `spec` permits it, leaves the mask as it is. Without `spec`
    the units are read from names and shapes (`masks.units`): dense layers, convolutions, attention, recurrent cells and
    embeddings of Linen, NNX, Equinox, Haiku and PyTorch's names, and stacks of layers made by `nn.scan`, `nn.vmap` and
    `nnx.vmap`, whose layers have units of their own. The bits depend on the key, the path of the layer and its units' shape.
    Drawing units exactly, and over all layers, is a choice of this project.

    Args:
      key, params, where, shared: as in `bernoulli`.
      ratio: the share of anchored units in each layer, a Python number.
      spec: `matching.permutation_spec` of the network: the groups of units that it traced, over residual sums and norms. The
        ratio is exact in each group; in attention, the same units are anchored in every head.
      apart: a norm is a layer of its own, and so are queries and keys, as `AnchorRecipe` draws them. By default norms, whose
        units are those of a layer that no tree names, are refused, and keys have the units of their queries.

    Returns:
      A mask as of `bernoulli`.

    Raises:
      ValueError: as in `bernoulli`; leaves whose units no layout tells (all are listed), or that are not those of `spec`.
      TypeError: as in `bernoulli`.
    """
    check_ratio(ratio, concrete=True)

    def leaf_masks(named: Sequence[Leaf], chosen: Sequence[Leaf]) -> list[jax.Array]:
        shapes = {path: leaf.shape for path, leaf in named}
        paths = [path for path, _ in chosen]
        if spec is None:
            found = units_by_layout(shapes, apart)
            refuse(found, paths)
            places = [as_place(found[path], shapes[path]) for path in paths]
        else:
            check_shapes(spec, shapes)
            places = [traced_place(spec, path, shapes[path]) for path in paths]
        drawn: dict[Draw, jax.Array] = {}
        for stacked in sorted({draw.stacked for place in places for draw in place.draws}):
            names = list(dict.fromkeys(d for place in places for d in place.draws if d.stacked == stacked))
            masks = _each(key, [(d.layer, d.shape, None) for d in names], lambda u: _keep(u, ratio, stacked))  # noqa: B023
            drawn |= dict(zip(names, map(_on_device, masks), strict=True))
        return [place.spread([drawn[draw] for draw in place.draws]) for place in places]

    return draw_leaves(params, where, shared, leaf_masks)


Draws = jax.Array | np.ndarray
"""Draws of a leaf, or its mask: NumPy's where they are few (`_each`)."""

Leaf = tuple[KeyPath, Any]
"""A leaf's path, and the array or its shape."""


def draw_leaves(
    params: Params,
    where: PathFilter | None,
    shared: bool,
    leaf_masks: Callable[[Sequence[Leaf], Sequence[Leaf]], Sequence[Draws]],
) -> Mask:
    """Gathers the masks of the chosen leaves from `leaf_masks(all leaves, chosen leaves)`."""
    named = trees.parameters(params)
    chosen = trees.selector(where, [path for path, _ in named])
    _refuse_statistics(params, chosen)
    single = _of_one_model(named) if shared else named
    masks = dict(
        zip([p for p, _ in named if chosen(p)], leaf_masks(single, [x for x in single if chosen(x[0])]), strict=True)
    )
    leaves = [
        jnp.broadcast_to(_on_device(masks[p]), x.shape) if p in masks else jnp.ones(x.shape, bool) for p, x in named
    ]
    return trees.like(params, [sharding.place(m, leaf) for m, (_, leaf) in zip(leaves, named, strict=True)])


def _refuse_statistics(params: Params, chosen: Callable[[KeyPath], bool]) -> None:
    """Raises ValueError where a mask would anchor running statistics: they follow the data, no optimizer holds them, and models that
    share them have wrong ones."""
    if held := [trees.name(path) for path in trees.running_statistics(params) if chosen(path)]:
        raise ValueError(
            f"anchors are for parameters, and these are running statistics: {', '.join(held)}. Draw the mask for variables['params'] "
            "in Linen, nnx.state(model, nnx.Param) in NNX, or leave them out with where="
        )


def _draw_entries(
    key: jax.Array,
    params: Params,
    where: PathFilter | None,
    shared: bool,
    finish: Callable[[Any], Draws],
    in_place: bool = False,
) -> Mask:
    """Draws each entry by itself; `finish` makes bools of a leaf's uniform draws, on the devices that hold them (`in_place`) or flat."""

    def leaf_masks(_: Sequence[Leaf], chosen: Sequence[Leaf]) -> list[Draws]:
        likes = [leaf if in_place else None for _, leaf in chosen]
        names = [(path, _drawn_shape(leaf, like), like) for (path, leaf), like in zip(chosen, likes, strict=True)]
        return [m.reshape(leaf.shape) for m, (_, leaf) in zip(_each(key, names, finish), chosen, strict=True)]

    return draw_leaves(params, where, shared, leaf_masks)


def _drawn_shape(leaf: Any, like: Any) -> tuple[int, ...]:
    """The shape in which a leaf is drawn: flat, which compiles fastest, or its own where devices draw parts of it."""
    meshed = sharding.sharding_of(like) is not None or not jax.sharding.get_abstract_mesh().empty
    return tuple(leaf.shape) if like is not None and meshed else (math.prod(leaf.shape),)


def _of_one_model(named: Sequence[Leaf]) -> list[Leaf]:
    """The shapes of one of the models that are stacked along the first axis."""
    sizes = {trees.name(path): leaf.shape[:1] for path, leaf in named}
    if len(set(sizes.values())) != 1 or () in sizes.values():
        raise ValueError(
            "shared=True is for models stacked along the first axis of every leaf, but these first axes differ: "
            + ", ".join(f"{name} {shape}" for name, shape in sizes.items())
        )
    return [(path, jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)) for path, leaf in named]


def _each(
    key: jax.Array, names: Sequence[tuple[KeyPath, tuple[int, ...], Any]], finish: Callable[[Any], Draws]
) -> list[Draws]:
    """Returns `finish(uniform(key, path, shape, like))` for each (path, shape, like).

    Few draws are made on the host, in NumPy, which compiles nothing. Inside a program, draws of one shape stand in one loop: a program of its
    own for each of them takes XLA many times as long to compile. The bits are the same.
    """
    if _few(key, names):
        root = host_bits.words(key)
        return [finish(_host_uniform(root, path, shape)) for path, shape, _ in names]
    loops: dict[tuple[int, ...], list[int]] = {}
    if isinstance(jnp.zeros(()), jax.core.Tracer) and jax.sharding.get_abstract_mesh().empty:
        for i, (_, shape, like) in enumerate(names):
            if sharding.sharding_of(like) is None:
                loops.setdefault(shape, []).append(i)
    results: dict[int, Draws] = {}
    for shape, places in loops.items():
        if len(places) > 1:
            words = jnp.asarray(np.stack([_words(names[i][0]) for i in places]))
            masks = jax.lax.map(lambda w: finish(_draws(key, w, shape)), words)  # noqa: B023
            results |= {i: masks[j] for j, i in enumerate(places)}
    return [results[i] if i in results else finish(uniform(key, *name)) for i, name in enumerate(names)]


HOST_ENTRIES = 1 << 20
"""Entries of a tree up to which it is drawn on the host: that takes 0.05 s, and compiling a program 0.1 s for each shape."""


def _few(key: jax.Array, names: Sequence[tuple[KeyPath, tuple[int, ...], Any]]) -> bool:
    """Whether draws are few, nothing is traced, and no array of theirs is spread over devices."""
    traced = isinstance(key, jax.core.Tracer) or isinstance(jnp.zeros(()), jax.core.Tracer)
    if traced or not jax.sharding.get_abstract_mesh().empty:
        return False
    alone = all(sharding.sharding_of(like) is None for _, _, like in names)
    return alone and sum(math.prod(shape) for _, shape, _ in names) <= HOST_ENTRIES


def _host_uniform(key: host_bits.Words, path: KeyPath, shape: tuple[int, ...]) -> np.ndarray:
    """As `uniform`."""
    for word in _words(path):
        key = host_bits.fold_in(key, int(word))
    return host_bits.uniform(key, math.prod(shape)).reshape(shape)


def _on_device(mask: Draws) -> jax.Array:
    return jnp.asarray(mask, bool)  # with its type: without it JAX compiles a program for each shape


def _words(path: KeyPath) -> np.ndarray:
    """64 bits of SHA-256 of a path."""
    return np.frombuffer(hashlib.sha256("\0".join(path).encode()).digest()[:8], "<u4")


def uniform(key: jax.Array, path: KeyPath, shape: tuple[int, ...], like: Any = None) -> jax.Array:
    """Returns uniform float32 in [0, 1), a function of (key, path, shape) alone: 64 bits of SHA-256 of the path are folded in.

    Laid out as `like`, if that is given: each device draws its part.
    """
    layout = sharding.sharding_of(like) if shape else None
    if layout is None:
        drawn: jax.Array = _draws(key, _words(path), shape)
    else:
        drawn = _sharded_draws(layout)(_anywhere(key), _words(path), shape)
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
    leaf_key = jax.random.fold_in(jax.random.fold_in(prng.threefry(key), words[0]), words[1])
    with jax.threefry_partitionable(True):
        if layout or not jax.sharding.get_abstract_mesh().empty:
            out = layout if isinstance(layout, NamedSharding) else None
            return jax.random.uniform(leaf_key, shape, jnp.float32, out_sharding=out)
        return jax.random.uniform(leaf_key, (math.prod(shape),), jnp.float32).reshape(shape)


def _keep(uniform: Draws, ratio: float, stacked: int = 0) -> Draws:
    """Bool like `uniform`, exactly `floor(ratio * size + 1/2)` entries False: those with the smallest draws; in each of `stacked` axes' parts."""
    count = int(ratio * math.prod(uniform.shape[stacked:]) + 0.5)
    if isinstance(uniform, np.ndarray):
        kept = np.ones((math.prod(uniform.shape[:stacked]), math.prod(uniform.shape[stacked:])), bool)
        order = np.argsort(uniform.reshape(kept.shape), axis=1, kind="stable")  # as jnp.argsort does
        np.put_along_axis(kept, order[:, :count], False, axis=1)
        return kept.reshape(uniform.shape)
    keep: jax.Array = _all_but_smallest(uniform, count, stacked)
    return keep


@functools.partial(jax.jit, static_argnames="stacked")  # one program for a shape, whatever the count
def _all_but_smallest(uniform: jax.Array, count: int | jax.Array, stacked: int = 0) -> jax.Array:
    if stacked:
        layers = uniform.reshape(-1, *uniform.shape[stacked:])
        rows: jax.Array = jax.vmap(lambda u: _all_but_smallest(u, count))(layers)
        return rows.reshape(uniform.shape)
    order = jnp.argsort(uniform.ravel())
    large = jnp.arange(uniform.size, dtype=jnp.int32) >= count
    keep: jax.Array = jnp.zeros(uniform.size, bool).at[order].set(large).reshape(uniform.shape)
    return keep


def check_ratio(ratio: float | jax.Array, concrete: bool = False) -> None:
    """Raises ValueError for a ratio outside [0, 1], and TypeError for a traced one where a number is needed (`concrete`)."""
    if isinstance(ratio, jax.core.Tracer):
        if concrete:
            raise TypeError("an exact count needs a Python number as ratio; draw with bernoulli to trace the ratio")
        return
    if isinstance(ratio, str):
        raise TypeError(f"ratio is a number in [0, 1], got the text {ratio!r}")
    if not jax.tree_util.all_leaves([ratio]) or np.ndim(ratio):
        raise TypeError(
            f"ratio is one number in [0, 1] for all leaves, got {type(ratio).__name__}; where= says which leaves are anchored"
        )
    if isinstance(ratio, (bool, np.bool_)):
        raise TypeError(
            f"ratio is a number in [0, 1], got {ratio}: True or False for a whole leaf is a mask, not a ratio"
        )
    if not 0 <= float(ratio) <= 1:
        raise ValueError(
            f"ratio is the share of anchored entries and must lie in [0, 1], got {ratio}{percent(float(ratio))}"
        )


def percent(ratio: float) -> str:
    """Returns what to add to an error about a ratio that was meant as a percentage: `; did you mean 0.4?` for 40, else nothing."""
    return f"; did you mean {ratio / 100:g}?" if 2 <= ratio <= 100 else ""

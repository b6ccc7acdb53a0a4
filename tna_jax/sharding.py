"""An array that stands beside a parameter is laid out as that parameter: masks, and whatever is combined with parameters.

On a mesh whose axes are Explicit (what `jax.make_mesh` makes by default) the layout is part of an array's type, and a selection
between arrays of unlike layouts is an error; on Auto axes the compiler decides, and what is made eagerly is placed here.
Programs that have a mesh of their own (`tna_jax.placement`) run outside any other: `outside_meshes`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta
from flax.linen import spmd
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

P = ParamSpec("P")
R = TypeVar("R")

_NO_MESH = Mesh(np.empty((), object), ())


def sharding_of(leaf: Any) -> NamedSharding | None:
    """Returns the layout that an array beside `leaf` must have, `None` where there is nothing to say.

    Args:
      leaf: an array (its layout if it is spread over a mesh), a traced one (its layout over Explicit axes), or a
        `jax.ShapeDtypeStruct` (the layout that was written there).
    """
    if isinstance(leaf, jax.core.Tracer):
        return _explicit(leaf)
    sharding = getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return None
    if isinstance(sharding.mesh, Mesh):
        return sharding
    here = sharding.mesh == jax.sharding.get_abstract_mesh() and AxisType.Explicit in sharding.mesh.axis_types
    return sharding if here else None  # a shape that was traced under another mesh


def place(array: Any, leaf: Any) -> jax.Array:
    """Returns `array` laid out as `leaf`, of the same shape; an array without axes stays.

    Every process holds the same `array` where `leaf` is spread over the devices of several.
    """
    placed: jax.Array = jnp.asarray(array)
    layout = sharding_of(leaf)
    if layout is None or placed.ndim == 0 or placed.shape != np.shape(leaf):
        return placed
    if isinstance(placed, jax.core.Tracer) or isinstance(leaf, jax.core.Tracer):
        return match(placed, leaf)
    if not isinstance(layout.mesh, Mesh):
        placed = jax.reshard(placed, layout)
    elif placed.sharding != layout and (layout.is_fully_addressable or not placed.is_fully_addressable):
        placed = jax.device_put(placed, layout)
    elif placed.sharding != layout:
        host = np.asarray(placed)
        placed = jax.make_array_from_callback(host.shape, layout, lambda index: host[index])
    return placed


def match(array: Any, like: Any) -> jax.Array:
    """Returns `array` with the layout of `like` over Explicit axes, as operations on both need it; else as it is."""
    matched: jax.Array = jnp.asarray(array)
    wanted, present = _explicit(like), _explicit(matched)
    if wanted is None or matched.ndim == 0 or matched.ndim != np.ndim(like):
        return matched
    if present is None or present.spec != wanted.spec:
        concrete = None if isinstance(like, jax.core.Tracer) else sharding_of(like)
        matched = jax.reshard(matched, wanted if concrete is None else concrete)
    return matched


def where(chosen: Any, a: Any, b: Any) -> jax.Array:
    """Selects as `jnp.where`, from arrays of one shape or scalars, whatever their layouts over Explicit axes: the result has `a`'s."""
    ndim = max(np.ndim(chosen), np.ndim(a), np.ndim(b))
    leaders = [x for x in (a, b, chosen) if ndim and np.ndim(x) == ndim and _explicit(x) is not None]
    selected: jax.Array
    if not leaders:
        selected = jnp.where(chosen, a, b)
        return selected
    shape = np.broadcast_shapes(np.shape(chosen), np.shape(a), np.shape(b))
    like = max(leaders, key=lambda x: np.shape(x) == shape)
    with _mesh_of(like):
        a, b = (_spread(jnp.asarray(x), like) for x in (a, b))
        selected = jnp.where(_spread(jnp.asarray(chosen), like) if np.ndim(chosen) else chosen, a, b)
    return selected


def _spread(array: jax.Array, like: Any) -> jax.Array:
    """`array` broadcast to the shape of `like`, in its layout."""
    if array.shape == np.shape(like):
        return match(array, like)
    axes = tuple(range(np.ndim(like) - array.ndim, np.ndim(like)))
    if array.ndim == 0 or all(
        size == whole for size, whole in zip(array.shape, np.shape(like)[-array.ndim :], strict=True)
    ):
        return jax.lax.broadcast_in_dim(array, np.shape(like), axes, out_sharding=_explicit(like))
    return match(jnp.broadcast_to(array, np.shape(like)), like)


def entry(stacked: Any, index: Any) -> jax.Array:
    """Returns `stacked[index]` of the leading axis, also where that is spread over an Explicit axis; `index` may be traced."""
    layout = _explicit(stacked)
    if layout is not None and layout.spec[0] is not None:
        concrete = None if isinstance(stacked, jax.core.Tracer) else sharding_of(stacked)
        mesh = layout.mesh if concrete is None else concrete.mesh
        stacked = jax.reshard(stacked, NamedSharding(mesh, PartitionSpec(None, *layout.spec[1:])))
    row: jax.Array = stacked[index]
    return row


def unconstrained(params: Any) -> Any:
    """Returns parameters whose Linen boxes (`nn.with_partitioning`) ask for no layout that the present mesh does not have.

    A box lays its array out whenever a network opens it in a mesh. In the mesh of an ensemble, whose models are whole on their
    device, that would be an error; the boxes stay and ask for nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return params

    def freed(node: Any) -> Any:
        if not isinstance(node, meta.Partitioned):
            return node
        logical = isinstance(node, spmd.LogicallyPartitioned)
        wanted = (
            () if logical else [axis for axes in node.names for axis in (axes if isinstance(axes, tuple) else (axes,))]
        )
        elsewhere = node.mesh is not None and node.mesh.abstract_mesh != mesh
        if AxisType.Manual in mesh.axis_types or elsewhere or not {*wanted} <= {None, *mesh.axis_names}:
            return node.replace(names=(), mesh=None)
        return node

    return jax.tree.map(freed, params, is_leaf=lambda node: isinstance(node, meta.Partitioned))


def rearranged(array: Any, function: Callable[[Any], Any]) -> Any:
    """Returns `function(array)`, which moves entries across devices, in the array's layout over Explicit axes; the shape stays."""
    layout = _explicit(array)
    if layout is None:
        return function(array)
    if isinstance(array, jax.core.Tracer):
        return match(function(jax.reshard(array, NamedSharding(layout.mesh, PartitionSpec()))), array)
    with no_mesh():
        return place(function(over_auto_axes(array)), array)


def _explicit(array: Any) -> NamedSharding | None:
    """The layout in an array's type, if any axis of its mesh is Explicit."""
    if not isinstance(array, jax.Array):
        return None
    sharding: NamedSharding = jax.typeof(array).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


@contextlib.contextmanager
def no_mesh() -> Iterator[None]:
    """Clears the mesh of `jax.set_mesh` for a while; while a program is traced it stays, since JAX allows nothing else."""
    with contextlib.nullcontext() if jax.sharding.get_abstract_mesh().empty else _set_if_allowed(_NO_MESH):
        yield


def _mesh_of(array: Any) -> AbstractContextManager[Any]:
    """The mesh of an array that is not traced, where none is set: what is made beside it has to be told."""
    layout = None if isinstance(array, jax.core.Tracer) else sharding_of(array)
    if layout is None or not isinstance(layout.mesh, Mesh) or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return _set_if_allowed(layout.mesh)


def _set_if_allowed(mesh: Mesh) -> AbstractContextManager[Any]:
    try:
        entered: AbstractContextManager[Any] = jax.set_mesh(mesh)
    except ValueError:  # while a program is traced
        entered = contextlib.nullcontext()
    return entered


def outside_meshes(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function that runs `function` as if no mesh were set, with arrays over Explicit axes laid out over Auto ones."""

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> R:
        if any(isinstance(x, jax.Array) and _is_explicit(x) for x in jax.tree.leaves((args, options))):
            args, options = jax.tree.map(over_auto_axes, (args, options))
        with no_mesh():
            return function(*args, **options)

    return run


def over_auto_axes(leaf: Any) -> Any:
    """Returns an array over Explicit axes as one over Auto axes, the same memory; anything else as it is."""
    if not isinstance(leaf, jax.Array) or not _is_explicit(leaf):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(over_auto_axes(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    layout = leaf.sharding
    assert isinstance(layout, NamedSharding) and isinstance(layout.mesh, Mesh)
    sharding = NamedSharding(Mesh(layout.mesh.devices, layout.mesh.axis_names), layout.spec)
    parts = [part.data for part in leaf.addressable_shards]
    return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)


def _is_explicit(array: jax.Array) -> bool:
    if isinstance(array, jax.core.Tracer) or not isinstance(array.sharding, NamedSharding):
        return False
    return AxisType.Explicit in array.sharding.mesh.axis_types

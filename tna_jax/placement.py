"""Where the models of an ensemble run: over which devices, and how on each device.

One mesh axis, `"member"`, over all devices; the leading axis of stacked trees is split over it and no device ever needs
another one's models. On its device a model runs in one of three ways that give the same numbers:

- `map`: one model after the other inside one compiled program; its state stays in cache.
- `loop`: a Python loop over models and steps with one dispatch each; the legible reference, equal to `map` bit for bit
  (networks with BatchNorm, soft masks, moving averages of parameters and some optimizers: to rounding, since XLA orders or
  fuses the arithmetic differently), and the fastest for convolutions on CPUs, where a compiled loop makes them many times slower.
- `vmap`: all models of the device in lockstep, as one batch. Equal to the others up to rounding: XLA compiles batched
  arithmetic to another order of operations (measured on jax 0.10 and 0.11, CPU).
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxtyping import Array, PyTree, Shaped

Placement = Literal["auto", "map", "vmap", "loop"]
AXIS = "member"


def resolve(placement: Placement, function: Callable[..., Any] | None, *args: Any) -> Placement:
    """Returns the placement that `auto` stands for on this backend and for this network; any other is returned as it is.

    A rule (see `automatic`), not a timing, so that the same command gives the same numbers. Warns, once, where convolutions are about to run
    on a CPU by kernels that make them slow (`slow_kernels`).

    Args:
      placement: one of `Placement`.
      function: the network, traced for `auto` only, to look for convolutions.
      args: its example arguments, arrays or shapes.

    Raises:
      ValueError: an unknown placement.
    """
    if placement not in get_args(Placement):
        raise ValueError(f"unknown placement {placement!r}: known are {', '.join(get_args(Placement))}")
    if placement != "auto" or function is None:
        return placement
    convolutions = "conv_general_dilated" in str(jax.make_jaxpr(function)(*args))
    if convolutions and jax.default_backend() == "cpu":
        _warn_of_slow_kernels()
    return automatic(jax.default_backend(), convolutions)


def slow_kernels() -> bool:
    """Returns whether XLA compiles for CPUs with YNN's kernels: read off a small program, so that it holds however they were switched off.

    With them a training step of ResNet20 takes several times as long (`benchmarks.convolution_ways`, jaxlib 0.10 to 0.12). The programs
    of `tna` switch them off by `backend.configure`.
    """
    square = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    return "ynn_fusion" in (jax.jit(jnp.dot).lower(square, square).compile().as_text() or "")


@functools.cache
def _warn_of_slow_kernels() -> None:
    if jax.__version_info__ < (0, 13) and slow_kernels():
        warnings.warn(
            f"jaxlib {jax.__version__} trains convolutions on CPUs several times slower than it can. Before JAX computes anything: "
            "tna_jax.backend.configure(), or XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= in the environment (nothing after the =), "
            "switches the kernels off that it is slow with; the tna command does that by itself",
            stacklevel=3,
        )


def automatic(backend: str, convolutions: bool) -> Placement:
    """Returns the placement of `auto` for networks with or without convolutions on a backend.

    | backend | without convolutions | with convolutions |
    | --- | --- | --- |
    | CPU | `map`: a model's state stays in cache | `loop`: they are many times slower inside a compiled loop |
    | GPU | `vmap`: 5 times as fast as `map` | `map`: 1.7 times as fast as `vmap` |
    | others | `vmap` (not measured) | `vmap` (not measured) |

    Measured on an H100 with batches of 128: 64 MLPs train on 12.1 million images a second under `vmap`, on 2.4 million under `map`;
    8 ResNet20 on 66,600 under `map`, on 39,800 under `vmap`, which makes grouped convolutions of theirs (58,300 where convolutions are
    computed by slices), on 34,200 under `loop`. See `benchmarks.gpu` and, for the CPU, `benchmarks.convolutions`.

    Args:
      backend: as `jax.default_backend()` names it.
      convolutions: whether XLA's convolutions run in the network.
    """
    if backend == "cpu":
        return "loop" if convolutions else "map"
    return "map" if convolutions and backend in ("gpu", "cuda", "rocm") else "vmap"


def mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a one-axis mesh over `devices`, by default all of them."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mesh_for(members: int) -> Mesh:
    """Returns a mesh over all devices, but over no more than there are members; of several processes always over all."""
    few = members < jax.device_count() and jax.process_count() == 1
    return mesh(jax.devices()[:members] if few else None)


def pad(tree: Any, multiple: int) -> Any:
    """Repeats the last entry of the leading axis until its length is a multiple of `multiple`.

    Args:
      tree: leaves (M, ...) with M >= 1, NumPy or JAX.
      multiple: at least 1, say the number of devices.

    Returns:
      A tree like it with leaves (ceil(M / multiple) * multiple, ...).
    """

    def extend(x: Any) -> Any:
        missing = -x.shape[0] % multiple
        if not missing:
            return x
        host = _in_memory(x)
        if host is None:
            return _repeat_last(x, missing)
        longer = np.concatenate([host, np.repeat(host[-1:], missing, axis=0)])
        return jax.device_put(longer, x.sharding if x.committed else None)

    return jax.tree.map(extend, tree)


@functools.partial(jax.jit, static_argnums=1)  # one small program for a shape instead of one for each operation
def _repeat_last(x: Array | np.ndarray, times: int) -> Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], times, axis=0)])


def _in_memory(x: Any) -> np.ndarray | None:
    """Returns an array as NumPy where that copies nothing, on one CPU device: cut and joined there, no shape is compiled for."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return None
    if x.weak_type or not isinstance(x.sharding, SingleDeviceSharding):
        return None
    return np.asarray(x) if next(iter(x.devices())).platform == "cpu" else None


def copied(tree: Any) -> Any:
    """Returns the tree with a copy of every array, whose memory may be donated; without compiling anything."""

    def copy(x: Any) -> Any:
        # The sharding of PRNG keys is that of their words, an axis more than `device_put` takes.
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_fully_addressable and not is_key:
            return jax.device_put(x, x.sharding, may_alias=False)
        return x.copy()

    return jax.tree.map(copy, tree)


def shard(tree: Any, mesh: Mesh) -> Any:
    """Places stacked arrays with their leading axis split over the mesh; it must be divisible (see `pad`)."""
    return _place(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Places a copy of every array on each device of the mesh."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def distinct(tree: Any) -> Any:
    """Returns the tree with a copy of every array whose memory is that of an earlier one: no memory may be donated twice."""
    seen: set[Any] = set()

    def copied(x: Any) -> Any:
        if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
            return x
        data = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        places = {(shard.device, shard.data.unsafe_buffer_pointer()) for shard in data.addressable_shards}
        twice = bool(places & seen)
        seen.update(places)
        return x.copy() if twice else x

    return jax.tree.map(copied, tree)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    """`device_put`, also onto devices of other processes, which all hold the same host arrays and run the same call."""
    if sharding.is_fully_addressable:
        if not sharding.is_fully_replicated:
            tree = jax.tree.map(lambda x: x if (host := _in_memory(x)) is None else host, tree)
        return jax.device_put(tree, sharding)

    def place(x: Any) -> Array:
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            keys: Array = jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            return keys
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(place, tree)


def to_host(tree: Any) -> Any:
    """Returns the arrays as NumPy, complete on every process (all processes must call it); no typed keys."""
    remote = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and not x.is_fully_addressable]
    if jax.process_count() == 1 or not remote:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def fetch_into(tree: PyTree[Shaped[Array | np.ndarray, "..."]], arrays: PyTree[Shaped[np.ndarray, "..."]]) -> None:
    """Copies stacked arrays into NumPy arrays, piece by piece from each device: faster than `to_host`, for memory that is reused.

    Args:
      tree: stacked arrays, split over devices along their leading axis; of several processes all must call it.
      arrays: a tree of the same structure with NumPy arrays; their leading axis may be shorter (without padding).
    """
    complete = tree if jax.process_count() == 1 else to_host(tree)

    def copy(x: Any, out: np.ndarray) -> None:
        for part in getattr(x, "addressable_shards", ()):
            first, last, _ = part.index[0].indices(len(out))
            out[first:last] = np.asarray(part.data)[: last - first]
        if isinstance(x, np.ndarray):
            out[:] = x[: len(out)]

    jax.tree.map(copy, complete, arrays)


def shard_map_stacked(function: Callable[..., Any], mesh: Mesh, replicated: int) -> Callable[..., Any]:
    """Returns `function(stacked, *replicated)` run on every device's share of the stacked tree, without communication.

    Args:
      function: takes one stacked tree and `replicated` further arguments; returns a stacked tree.
      mesh: whose only axis the stacked tree is split over.
      replicated: number of further arguments, of which every device has a copy.
    """
    stacked, copies = PartitionSpec(AXIS), (PartitionSpec(),) * replicated
    return jax.shard_map(function, mesh=mesh, in_specs=(stacked, *copies), out_specs=stacked, check_vma=False)


def shard_map_single(function: Callable[..., Any], mesh: Mesh, replicated: int) -> Callable[..., Any]:
    """As `shard_map_stacked`, for a share of one model on each device, which `function` takes and returns without the leading axis."""

    def on_share(stacked: Any, *copies: Any) -> Any:
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], stacked), *copies))

    return shard_map_stacked(on_share, mesh, replicated)

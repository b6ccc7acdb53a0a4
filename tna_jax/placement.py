"""Where the models of an ensemble run: over which devices, and how on each device.

One mesh axis, `"member"`, over all devices; the leading axis of stacked trees is split over it and no device ever needs
another one's models. On its device a model runs in one of three ways that give the same numbers:

- `map`: one model after the other inside one compiled program; its state stays in cache.
- `loop`: a Python loop over models and steps with one dispatch each; the legible reference, equal to `map` bit for bit
  (networks with BatchNorm: to rounding, since sums over a batch are ordered differently), and the fastest for convolutions on
  CPUs, where a compiled loop makes them many times slower.
- `vmap`: all models of the device in lockstep, as one batch. Equal to the others up to rounding: XLA compiles batched
  arithmetic to another order of operations (measured on jax 0.10 and 0.11, CPU).
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Placement = Literal["auto", "map", "vmap", "loop"]
AXIS = "member"


def resolve(placement: Placement, function, *args) -> Placement:
    """The placement that `auto` stands for, on this backend and for this network; any other is returned as it is.

    A rule, not a timing, so that the same command gives the same numbers. Accelerators take `vmap` (not measured yet: see
    `benchmarks.gpu`). The CPU takes `map`, since a model's state fits its cache, except for networks with convolutions,
    which are many times slower inside a compiled loop there: `loop` (measured: `benchmarks.convolutions`).

    Args:
      placement: one of `Placement`.
      function, args: the network and example arguments (arrays or shapes), traced to look for convolutions.

    Raises:
      ValueError: an unknown placement.
    """
    if placement not in get_args(Placement):
        raise ValueError(f"unknown placement {placement!r}: known are {', '.join(get_args(Placement))}")
    if placement != "auto":
        return placement
    if jax.default_backend() != "cpu":
        return "vmap"
    return "loop" if "conv_general_dilated" in str(jax.make_jaxpr(function)(*args)) else "map"


def mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A one-axis mesh over `devices`, by default all of them."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mesh_for(members: int) -> Mesh:
    """A mesh over all devices, but over no more than there are members; of several processes always over all."""
    few = members < jax.device_count() and jax.process_count() == 1
    return mesh(jax.devices()[:members] if few else None)


def pad(tree, multiple: int):
    """Repeats the last entry of the leading axis until its length is a multiple of `multiple`."""

    def extend(x):
        missing = -x.shape[0] % multiple
        return jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)]) if missing else x

    return jax.tree.map(extend, tree)


def shard(tree, mesh: Mesh):
    """Places stacked arrays with their leading axis split over the mesh; it must be divisible (see `pad`)."""
    return _place(tree, NamedSharding(mesh, PartitionSpec(AXIS)))


def replicate(tree, mesh: Mesh):
    """Places a copy of every array on each device of the mesh."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def _place(tree, sharding: NamedSharding):
    """`device_put`, also onto devices of other processes, which all hold the same host arrays and run the same call."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(x):
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    return jax.tree.map(one, tree)


def to_host(tree):
    """The arrays as NumPy, whole on every process (all processes must call it); no typed keys."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    whole = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array) and not x.is_fully_addressable]
    if not whole:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))


def fetch_into(tree, arrays) -> None:
    """Copies stacked arrays into NumPy arrays, piece by piece from each device: faster than `fetch`, for memory that is used again.

    Args:
      tree: stacked arrays, split over devices along their leading axis; of several processes all must call it.
      arrays: a tree of the same structure with NumPy arrays; their leading axis may be shorter (without padding).
    """
    whole = tree if jax.process_count() == 1 else to_host(tree)

    def put(x, out):
        for shard in getattr(x, "addressable_shards", ()):
            first, last, _ = shard.index[0].indices(len(out))
            out[first:last] = np.asarray(shard.data)[: last - first]
        if isinstance(x, np.ndarray):
            out[:] = x[: len(out)]

    jax.tree.map(put, whole, arrays)


def shard_map_stacked(function, mesh: Mesh, replicated: int):
    """`function(stacked, *replicated)` on every device's share of the stacked tree, without communication.

    Args:
      function: takes one stacked tree and `replicated` further arguments; returns a stacked tree.
    """
    stacked, whole = PartitionSpec(AXIS), PartitionSpec()
    return jax.shard_map(
        function, mesh=mesh, in_specs=(stacked, *(whole,) * replicated), out_specs=stacked, check_vma=False
    )


def shard_map_single(function, mesh: Mesh, replicated: int):
    """As `sharded`, for a share of one model on each device, which `function` takes and returns without the leading axis."""

    def share(stacked, *whole):
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], stacked), *whole))

    return shard_map_stacked(share, mesh, replicated)

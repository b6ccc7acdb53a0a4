"""How much memory an ensemble takes, predicted before it trains, and how many of its models fit at once."""

import math
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from tna_jax import ensemble, networks
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Members, Trainer
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.progress import console

GB = 1e9
SHARE = 0.85
"""Of the free memory that may be planned with."""
PLANNED_FROM = 0.5 * GB
"""From this estimate on the compiler is asked what a training takes; below it nobody needs to know that well."""
SAVING = 2
"""Copies of all models that a checkpoint holds while it is being written (orbax 0.12: measured 1.9, later saves 2.3 and more)."""


class Estimate(NamedTuple):
    """Bytes."""

    kept: int
    """Of one model between two steps: parameters, mask, optimizer and norm state."""
    working: int
    """Of one model during a step, beside that: saved activations and gradients."""
    common: int
    """Of the data on a device, whatever the number of models."""


def estimate(trainer: Trainer, one: Members, inputs, labels) -> Estimate:
    """Predicts a model's memory from shapes alone: nothing is computed or compiled.

    The activations are what reverse-mode differentiation of the loss keeps (its residuals), plus twice the largest of them as
    working space; beside them the gradients. The compiled program may fuse some of it away: the prediction is of the right
    size, not exact (a test compares the two).

    Args:
      one: a member without the leading axis, arrays or shapes.
      inputs, labels: the training data, arrays or shapes.
    """
    count = trainer.batch_size // trainer.accumulate
    batch, weight = _batch(count, inputs)
    if trainer.prepare is not None:
        chosen = jax.ShapeDtypeStruct((count, *labels.shape[1:]), labels.dtype)
        batch, _, weight = jax.eval_shape(trainer.prepare, one.data_keys, one.hyper, (batch, chosen, weight))
    step = _working(trainer.network, one.params, one.state, batch, weight)
    step += size(one.params) if trainer.accumulate > 1 else 0
    return Estimate(size([one.params, one.mask, one.opt_state, one.state]), step, size([inputs, labels]))


def working(net: networks.Network, params, state, batch_size: int, inputs) -> int:
    """Bytes of one model during a step beside what is kept, see `need`: saved activations, the gradients, the batch."""
    return _working(net, params, state, *_batch(batch_size, inputs))


def _batch(count: int, inputs) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes of `count` examples and their weights."""
    return jax.ShapeDtypeStruct((count, *inputs.shape[1:]), inputs.dtype), jax.ShapeDtypeStruct((count,), jnp.float32)


def _working(net: networks.Network, params, state, batch, weight) -> int:
    def residuals(params, state, batch, weight):
        def logits(params):
            return networks.train(net, params, state, batch, weight)[0]

        return jax.vjp(logits, params)[1]

    saved = jax.tree.leaves(jax.eval_shape(residuals, params, state, batch, weight))
    inside = set(map(_shape, jax.tree.leaves((params, state))))  # parameters among the residuals are no copies
    sizes = [size([leaf]) for leaf in saved if _shape(leaf) not in inside]
    return sum(sizes) + 2 * max(sizes, default=0) + size(params) + size([batch])


def _shape(leaf) -> tuple[Any, ...]:
    return (leaf.shape, str(leaf.dtype))


def size(tree) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available(limit: float | None = None) -> int:
    """Bytes that models may take on each device (CPU: in all), `limit` in GB if there is one."""
    if limit is not None:
        return int(limit * GB)
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
        return int(SHARE * free) if free > 0 else sys.maxsize
    return int(SHARE * min(_free_memory(), _free_in_group()))


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return sys.maxsize


def _free_in_group() -> int:
    """What a container's limit (control group, versions 2 and 1) leaves."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):
            continue
    return sys.maxsize


def device_bytes(count: int, found: Estimate, placement: ensemble.Placement, host: int = 0) -> int:
    """Bytes on one device, or in all of a CPU, that `count` models at once take.

    Args:
      host: what the CPU's memory holds beside that, see `hosted`; of no account where devices have a memory of their own.
    """
    each = -(-count // jax.device_count())
    share = each * found.kept + (each if placement == "vmap" else 1) * found.working + found.common
    return jax.local_device_count() * share + host if jax.default_backend() == "cpu" else share


def host_bytes(models: int, found: Estimate) -> int:
    """Bytes of the CPU's memory that an ensemble takes beside its devices: two copies of all models, and see `saving`."""
    return 2 * models * found.kept + checkpoint_bytes(models, found)


def checkpoint_bytes(models: int, found: Estimate) -> int:
    """Bytes of the CPU's memory that writing a checkpoint of all models takes; it is written while the next epochs run."""
    return SAVING * models * found.kept


def at_once(models: int, found: Estimate, placement: ensemble.Placement, free: int, host: int = 0) -> int:
    """How many of `models` models fit at once, over all devices; a multiple of the devices unless all fit.

    Args:
      free: bytes that may be taken on each device, or on the CPU, whose devices share one memory.
      host: as in `taken`.

    Raises:
      UsageError: not even one for each device does.
    """
    devices = jax.device_count()
    on_cpu = jax.default_backend() == "cpu"

    def bytes_of(count: int) -> int:
        return device_bytes(count, found, placement, host)

    if bytes_of(models) <= free:
        return models
    least = bytes_of(1) if on_cpu else bytes_of(devices)
    fitting = [count for count in range(devices, models, devices) if bytes_of(count) <= free]
    if not fitting:
        beside = f" beside {host / GB:.3g} GB in the CPU's memory" if on_cpu and host else ""
        raise UsageError(
            f"one model on each device needs about {least / GB:.3g} GB ({_words(found)}{beside}), but {free / GB:.3g} GB may be "
            "used: a smaller --batch-size, fewer models or --memory-limit can help"
        )
    return fitting[-1]


def predict(trainer: Trainer, one: Members, models: int, found: Estimate, inputs, labels, count: int) -> int:
    """Bytes that training `count` of `models` models at once takes: estimated, and where that is much, as the compiler plans it.

    On the CPU what writing a checkpoint of all models takes is in it.

    Args:
      trainer: with its placement resolved.
      one: a member without the leading axis, arrays or shapes.
      found: see `need`.
      inputs, labels: as in `planned`.
    """
    estimate = device_bytes(count, found, trainer.placement, host_bytes(models, found))
    if estimate < PLANNED_FROM or trainer.placement == "loop" or jax.process_count() > 1:
        return estimate
    members = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), one)
    files = checkpoint_bytes(models, found) if jax.default_backend() == "cpu" else 0
    return compiled_bytes(trainer, members, inputs, labels) + files


def plan_waves(
    trainer: Trainer, one: Members, models: int, found: Estimate, inputs, labels, room: int
) -> tuple[int, int]:
    """How many of `models` models fit into `room` bytes at once, and the bytes that they take; arguments as in `takes`.

    Raises:
      UsageError: not even one for each device does.
    """
    placement = trainer.placement
    count = at_once(models, found, placement, room, host_bytes(models, found))
    predicted = predict(trainer, one, models, found, inputs, labels, count)
    if predicted > room:  # the estimate is too low; what it says of the parts is right all the same
        low = predicted / device_bytes(count, found, placement, host_bytes(models, found))
        more = Estimate(*(math.ceil(low * part) for part in found))
        count = at_once(models, more, placement, room, host_bytes(models, more))
        predicted = predict(trainer, one, models, found, inputs, labels, count)
    return count, predicted


def print_estimate(predicted: int, files: int, before: int) -> None:
    """Says what a training will take, where that is much.

    Args:
      predicted: see `takes`.
      files: the part of it that is taken on a CPU while a checkpoint is written only, see `saving`.
      before: what the process has already.
    """
    if predicted >= PLANNED_FROM:
        files = files if jax.default_backend() == "cpu" else 0
        more = f" and {files / GB:.3g} GB more while a checkpoint is written" if files else ""
        console.print(
            f"memory: {(predicted - files) / GB:.3g} GB for the training{more}, beside {before / GB:.3g} GB taken so far"
        )


def compiled_bytes(trainer: Trainer, members: Members, inputs, labels) -> int:
    """Bytes that an epoch of these members takes beside what there is, as the compiler plans it: exact where `need` estimates.

    Counted are the members and the data on their devices and what a step works with; on a CPU of all devices together, and a copy
    of the members, from which training begins. The program is compiled for it, as it would be for the training (whose compiler
    finds it again in the cache of compiled programs).

    Args:
      members: M members, arrays or shapes.
      inputs, labels: the training data, arrays or shapes; `None` where members have their own.

    Raises:
      ValueError: the placement is `loop`, which has no program for an epoch.
    """
    mesh = placement_lib.mesh_for(members.data_keys.shape[0])
    placement = ensemble.resolve(trainer, members, inputs)
    if placement == "loop":
        raise ValueError("the placement loop dispatches step by step: there is no program to ask; see need")
    split, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec(placement_lib.AXIS), PartitionSpec()))

    def stacked(x):
        return jax.ShapeDtypeStruct((x.shape[0] + -x.shape[0] % mesh.size, *x.shape[1:]), x.dtype, sharding=split)

    given = jax.tree.map(stacked, members)
    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), (inputs, labels))
    epoch = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    program = ensemble.epoch_program(trainer, placement, mesh, True).lower(given, *data, epoch).compile()
    found = program.memory_analysis()
    each = (
        found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    )
    if jax.default_backend() != "cpu":
        return each
    kept = [members.params, members.mask, members.opt_state, members.state]
    return mesh.size * each + size(kept)


def resident() -> int:
    """Bytes of memory that this process takes now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _words(found: Estimate) -> str:
    return f"{found.kept / GB:.3g} GB kept and {found.working / GB:.3g} GB working memory a model"


def peak() -> int:
    """Bytes this process (CPU) or its fullest device has taken at most so far."""
    if jax.default_backend() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return max((device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices())

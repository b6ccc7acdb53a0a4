"""How much memory an ensemble takes, predicted before it trains, and how many of its models fit at once."""

import math
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from tna_jax import ensemble, network, placement
from tna_jax.ensemble import Members, Trainer
from train.errors import UsageError

GB = 1e9
SHARE = 0.85
"""Of the free memory that may be planned with."""


class Need(NamedTuple):
    """Bytes."""

    kept: int
    """Of one model between two steps: parameters, mask, optimizer and norm state."""
    working: int
    """Of one model during a step, beside that: saved activations and gradients."""
    common: int
    """Of the data on a device, whatever the number of models."""


def need(trainer: Trainer, one: Members, inputs, labels) -> Need:
    """Predicts a model's memory from shapes alone: nothing is computed or compiled.

    The activations are what reverse-mode differentiation of the loss keeps (its residuals), plus twice the largest of them as
    working space; beside them the gradients. The compiled program may fuse some of it away: the prediction is of the right
    size, not exact (a test compares the two).

    Args:
      one: a member without the leading axis, arrays or shapes.
      inputs, labels: the training data, arrays or shapes.
    """
    size_at_once = trainer.batch_size // trainer.accumulate
    batch = jax.ShapeDtypeStruct((size_at_once, *inputs.shape[1:]), inputs.dtype)
    weight = jax.ShapeDtypeStruct((size_at_once,), jnp.float32)
    if trainer.prepare is not None:
        chosen = jax.ShapeDtypeStruct((size_at_once, *labels.shape[1:]), labels.dtype)
        batch, _, weight = jax.eval_shape(trainer.prepare, one.order, one.hyper, (batch, chosen, weight))

    def residuals(params, state, batch, weight):
        def logits(params):
            return network.train(trainer.network, params, state, batch, weight)[0]

        return jax.vjp(logits, params)[1]

    saved = jax.tree.leaves(jax.eval_shape(residuals, one.params, one.state, batch, weight))
    inside = set(map(_shape, jax.tree.leaves((one.params, one.state))))  # parameters among the residuals are no copies
    sizes = [size([leaf]) for leaf in saved if _shape(leaf) not in inside]
    gradients = size(one.params) * (1 if trainer.accumulate == 1 else 2)
    working = sum(sizes) + 2 * max(sizes, default=0) + gradients + size([batch])
    return Need(size([one.params, one.mask, one.opt_state, one.state]), working, size([inputs, labels]))


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


def taken(count: int, models: int, found: Need, how: ensemble.Placement) -> int:
    """Bytes on one device, or in all of a CPU, that training takes with `count` of `models` models at once."""
    each = -(-count // jax.device_count())
    share = each * found.kept + (each if how == "vmap" else 1) * found.working + found.common
    return jax.local_device_count() * share + 2 * models * found.kept if jax.default_backend() == "cpu" else share


def at_once(models: int, found: Need, how: ensemble.Placement, free: int) -> int:
    """How many of `models` models fit at once, over all devices; a multiple of the devices unless all fit.

    On the CPU the devices share one memory, which also holds a copy of all models between epochs.

    Raises:
      UsageError: not even one for each device does.
    """
    devices = jax.device_count()
    on_cpu = jax.default_backend() == "cpu"

    def bytes_of(count: int) -> int:
        return taken(count, models, found, how)

    if bytes_of(models) <= free:
        return models
    least = bytes_of(1) if on_cpu else bytes_of(devices)
    fitting = [count for count in range(devices, models, devices) if bytes_of(count) <= free]
    if not fitting:
        raise UsageError(
            f"one model on each device needs about {least / GB:.3g} GB ({_words(found)}), but {free / GB:.3g} GB may be "
            "used: a smaller --batch-size, fewer models or --memory-limit can help"
        )
    return fitting[-1]


def planned(trainer: Trainer, members: Members, inputs, labels) -> int:
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
    over = placement.mesh_for(members.order.shape[0])
    how = ensemble.resolve(trainer, members, inputs)
    if how == "loop":
        raise ValueError("the placement loop dispatches step by step: there is no program to ask; see need")
    split, whole = (NamedSharding(over, spec) for spec in (PartitionSpec(placement.AXIS), PartitionSpec()))

    def stacked(x):
        return jax.ShapeDtypeStruct((x.shape[0] + -x.shape[0] % over.size, *x.shape[1:]), x.dtype, sharding=split)

    given = jax.tree.map(stacked, members)
    data = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), (inputs, labels))
    epoch = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    program = ensemble.epoch_program(trainer, how, over, True).lower(given, *data, epoch).compile()
    found = program.memory_analysis()
    each = (
        found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    )
    if jax.default_backend() != "cpu":
        return each
    kept = [members.params, members.mask, members.opt_state, members.state]
    return over.size * each + size(kept)


def resident() -> int:
    """Bytes of memory that this process takes now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _words(found: Need) -> str:
    return f"{found.kept / GB:.3g} GB kept and {found.working / GB:.3g} GB working memory a model"


def peak() -> int:
    """Bytes this process (CPU) or its fullest device has taken at most so far."""
    if jax.default_backend() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return max((device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices())

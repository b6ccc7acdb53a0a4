"""How much memory an ensemble takes, predicted before it trains, and how many of its models fit at once."""

import math
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tna_jax import ensemble, network
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
    step = working(trainer.network, one.params, one.state, trainer.batch_size, inputs)
    return Need(size([one.params, one.mask, one.opt_state, one.state]), step, size([inputs, labels]))


def working(net: network.Network, params, state, batch_size: int, inputs) -> int:
    """Bytes of one model during a step beside what is kept, see `need`: saved activations, the gradients, the batch."""
    batch = jax.ShapeDtypeStruct((batch_size, *inputs.shape[1:]), inputs.dtype)
    weight = jax.ShapeDtypeStruct((batch_size,), jnp.float32)

    def residuals(params, state, batch, weight):
        def logits(params):
            return network.train(net, params, state, batch, weight)[0]

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


def at_once(models: int, found: Need, how: ensemble.Placement, free: int) -> int:
    """How many of `models` models fit at once, over all devices; a multiple of the devices unless all fit.

    On the CPU the devices share one memory, which also holds a copy of all models between epochs.

    Raises:
      UsageError: not even one for each device does.
    """
    devices, local = jax.device_count(), jax.local_device_count()
    on_cpu = jax.default_backend() == "cpu"

    def bytes_of(count: int) -> int:
        """On one device, or in all of a CPU, with `count` models at once."""
        each = -(-count // devices)
        share = each * found.kept + (each if how == "vmap" else 1) * found.working + found.common
        return local * share + 2 * models * found.kept if on_cpu else share

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


def _words(found: Need) -> str:
    return f"{found.kept / GB:.3g} GB kept and {found.working / GB:.3g} GB working memory a model"


def peak() -> int:
    """Bytes this process (CPU) or its fullest device has taken at most so far."""
    if jax.default_backend() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return max((device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices())

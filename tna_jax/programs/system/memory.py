"""How much memory an ensemble takes, predicted before it trains, and how many of its models fit at once."""

import math
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from tna_jax import ensemble, networks, trees
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Members, Trainer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.masks.freezing import with_frozen, without_frozen
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console

GB = 1e9
Arrays = Any
"""Arrays or their shapes (`jax.ShapeDtypeStruct`)."""
SHARE = 0.85
"""Share of the free memory that may be planned with."""
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


class Host(NamedTuple):
    """Bytes of the CPU's memory beside the devices' models."""

    kept: int
    """All the time."""
    saving: int
    """While a checkpoint is written."""


def estimate(trainer: Trainer, member: Members, inputs: Arrays, labels: Arrays) -> Estimate:
    """Predicts a model's memory from shapes alone: nothing is computed or compiled.

    The activations are what reverse-mode differentiation of the loss keeps (its residuals), plus twice the largest of them as
    working space; beside them the gradients. The compiled program may fuse some of it away: the prediction is of the right
    size, not exact (a test compares the two).

    Args:
      member: one member without the leading axis, arrays or shapes.
      inputs, labels: the training data, arrays or shapes.
    """
    count = trainer.batch_size // trainer.accumulate
    batch, weight = _batch(count, inputs)
    if trainer.prepare is not None:
        targets = trees.shape_of(labels, (count, *labels.shape[1:]))
        batch, _, weight = jax.eval_shape(trainer.prepare, member.data_keys, member.hyper, (batch, targets, weight))
    step = _working(trainer.network, member.params, member.state, batch, weight, trainer.freeze)
    step += size(without_frozen(member.params, trainer.freeze)) if trainer.accumulate > 1 else 0
    return Estimate(size([member.params, member.mask, member.opt_state, member.state]), step, size([inputs, labels]))


def working(net: networks.Network, params: Params, state: State, batch_size: int, inputs: Arrays) -> int:
    """Computes the bytes of one model during a step beside what is kept, see `estimate`: saved activations, the gradients, the batch."""
    return _working(net, params, state, *_batch(batch_size, inputs))


def _batch(count: int, inputs: Arrays) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of `count` examples and their weights."""
    return trees.shape_of(inputs, (count, *inputs.shape[1:])), jax.ShapeDtypeStruct((count,), jnp.float32)


def _working(
    net: networks.Network,
    params: Params,
    state: State,
    batch: Arrays,
    weight: Arrays,
    freeze: trees.PathFilter | None = None,
) -> int:
    def residuals(params: Params, state: State, batch: Arrays, weight: Arrays) -> Any:
        def logits(trained: Params) -> Any:
            whole = with_frozen(trained, params, freeze)
            key = jax.random.key(0) if networks.wants_key(net) else None
            return networks.train(net, whole, state, batch, weight, key)[0]

        return jax.vjp(logits, without_frozen(params, freeze))[1]

    saved = jax.tree.leaves(jax.eval_shape(residuals, params, state, batch, weight))
    inside = set(map(_shape, jax.tree.leaves((params, state))))  # parameters among the residuals are no copies
    sizes = [size([leaf]) for leaf in saved if _shape(leaf) not in inside]
    return sum(sizes) + 2 * max(sizes, default=0) + size(without_frozen(params, freeze)) + size([batch])


def _shape(leaf: Arrays) -> tuple[Any, ...]:
    return (leaf.shape, str(leaf.dtype))


def size(tree: Any) -> int:
    """Computes the bytes of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def available(limit: float | None = None) -> int:
    """Returns the bytes that models may take on each device (CPU: in all), `limit` in GB if there is one."""
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
    """Returns what a container's limit (control group, versions 2 and 1) leaves."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):
            continue
    return sys.maxsize


def device_bytes(count: int, each: Estimate, placement: placement_lib.Placement, host: int = 0) -> int:
    """Computes the bytes on one device, or in all of a CPU, that `count` models at once take.

    Args:
      host: what the CPU's memory holds beside that, see `host_bytes`; ignored where devices have a memory of their own.
    """
    models = -(-count // jax.device_count())
    share = models * each.kept + (models if placement == "vmap" else 1) * each.working + each.common
    return jax.local_device_count() * share + host if jax.default_backend() == "cpu" else share


def host_of_ensemble(models: int, each: Estimate) -> Host:
    """Computes what an ensemble takes of the CPU's memory beside its devices: two copies of all models, and a checkpoint."""
    return Host(2 * models * each.kept, checkpoint_bytes(models, each))


def host_bytes(models: int, each: Estimate) -> int:
    """Computes the bytes of `host_of_ensemble`, a checkpoint included."""
    return sum(host_of_ensemble(models, each))


def checkpoint_bytes(models: int, each: Estimate) -> int:
    """Computes the bytes of the CPU's memory that writing a checkpoint of all models takes, while the next epochs run."""
    return SAVING * models * each.kept


def at_once(models: int, each: Estimate, placement: placement_lib.Placement, free: int, host: int = 0) -> int:
    """Computes how many of `models` models fit at once, over all devices; a multiple of the devices unless all fit.

    Args:
      free: bytes that may be taken on each device, or on the CPU, whose devices share one memory.
      host: as in `device_bytes`.

    Raises:
      UsageError: not even one for each device does.
    """
    devices = jax.device_count()
    on_cpu = jax.default_backend() == "cpu"

    def bytes_of(count: int) -> int:
        return device_bytes(count, each, placement, host)

    if bytes_of(models) <= free:
        return models
    fitting = [count for count in range(devices, models, devices) if bytes_of(count) <= free]
    if not fitting:
        host = host if on_cpu else 0
        least, working = bytes_of(devices), each.working * (jax.local_device_count() if on_cpu else 1)
        beside = f" beside {host / GB:.3g} GB in the CPU's memory" if host else ""
        raise UsageError(
            f"one model on each device needs about {least / GB:.3g} GB ({_describe(each)}{beside}), but {free / GB:.3g} GB may be "
            f"used: {_advice(least, working, host, free)}"
        )
    return fitting[-1]


def _advice(least: int, working: int, host: int, free: int) -> str:
    """Returns what can bring the `least` bytes below the `free` ones: only what is large enough, and a limit only where it is below what is free."""
    helps = []
    if least - working <= free:
        helps.append("a smaller --batch-size")
    if host and least - host <= free:
        helps.append("fewer models")
    if free < least <= available():
        helps.append(f"--memory-limit {math.ceil(10 * least / GB) / 10:g}")
    if not helps:
        return "it needs a machine with more memory, or a smaller model"
    return f"{' or '.join([', '.join(helps[:-1]), helps[-1]] if helps[1:] else helps)} can help"


def predict(
    trainer: Trainer,
    member: Members,
    models: int,
    each: Estimate,
    inputs: Arrays,
    labels: Arrays,
    count: int,
    host: Host | None = None,
) -> int:
    """Predicts the bytes that training `count` of `models` models at once takes; where that is much, as the compiler plans it.

    On the CPU this includes what writing a checkpoint takes.

    Args:
      trainer: with its placement resolved.
      member: one member without the leading axis, arrays or shapes.
      each: of one model, see `estimate`.
      inputs, labels: as in `compiled_bytes`.
      host: what the CPU's memory holds beside the models in training; default: that of an ensemble, all whose models are kept and saved.
    """
    estimated = device_bytes(count, each, trainer.placement, sum(host or host_of_ensemble(models, each)))
    if estimated < PLANNED_FROM or trainer.placement == "loop" or jax.process_count() > 1:
        return estimated
    members = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), member)
    beside = checkpoint_bytes(models, each) if host is None else sum(host)
    return compiled_bytes(trainer, members, inputs, labels) + (beside if jax.default_backend() == "cpu" else 0)


def plan_waves(
    trainer: Trainer,
    member: Members,
    models: int,
    each: Estimate,
    inputs: Arrays,
    labels: Arrays,
    room: int,
    host: Host | None = None,
) -> tuple[int, int]:
    """Computes how many of `models` models fit into `room` bytes at once, and the bytes they take; arguments as in `predict`.

    Raises:
      UsageError: not even one for each device does.
    """

    def beside(model: Estimate) -> int:
        return sum(host or host_of_ensemble(models, model))

    def fit(model: Estimate) -> tuple[int, int]:
        count = at_once(models, model, trainer.placement, room, beside(model))
        return count, predict(trainer, member, models, each, inputs, labels, count, host)

    count, predicted = fit(each)
    if predicted > room:  # the estimate is too low; what it says of the parts is right all the same
        low = predicted / device_bytes(count, each, trainer.placement, beside(each))
        count, predicted = fit(Estimate(*(math.ceil(low * part) for part in each)))
    return count, predicted


def print_estimate(predicted: int, files: int, before: int) -> None:
    """Prints what a training will take, where that is much.

    Args:
      predicted: see `predict`.
      files: the part of it that is taken on a CPU only while a checkpoint is written, see `checkpoint_bytes`.
      before: what the process has already.
    """
    if predicted >= PLANNED_FROM:
        files = files if jax.default_backend() == "cpu" else 0
        more = f" and {files / GB:.3g} GB more while a checkpoint is written" if files else ""
        console.print(
            f"memory: {(predicted - files) / GB:.3g} GB for the training{more}, beside {before / GB:.3g} GB taken so far"
        )


def compiled_bytes(trainer: Trainer, members: Members, inputs: Arrays, labels: Arrays) -> int:
    """Asks the compiler for the bytes that an epoch of these members takes beside what there is: exact where `estimate` is not.

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
        raise ValueError("the placement loop dispatches step by step: there is no program to ask; see estimate")
    sharded, replicated = (NamedSharding(mesh, spec) for spec in (PartitionSpec(placement_lib.AXIS), PartitionSpec()))

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
        shape = trees.shape_of(x, (x.shape[0] + -x.shape[0] % mesh.size, *x.shape[1:]))
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharded)

    arguments = jax.tree.map(stacked, members)
    data = jax.tree.map(lambda x: trees.shape_of(x).update(sharding=replicated), (inputs, labels))
    epoch = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    program = ensemble.epoch_program(trainer, placement, mesh, True).lower(arguments, *data, epoch).compile()
    plan = program.memory_analysis()
    device = (
        plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    )
    if jax.default_backend() != "cpu":
        return int(device)
    kept = [members.params, members.mask, members.opt_state, members.state]
    return int(mesh.size * device) + size(kept)


def resident() -> int:
    """Returns the bytes of memory that this process takes now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _describe(each: Estimate) -> str:
    return f"{each.kept / GB:.3g} GB kept and {each.working / GB:.3g} GB working memory a model"


def peak() -> int:
    """Returns the bytes that this process (CPU) or its fullest device has taken at most so far."""
    if jax.default_backend() == "cpu":
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return max(int((device.memory_stats() or {}).get("peak_bytes_in_use", 0)) for device in jax.local_devices())

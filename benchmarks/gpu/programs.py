"""What is timed: our training of many models, PyTorch's of one, and what our programs were compiled to."""

import collections
import contextlib
import functools
import gc
import gzip
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.gpu.bench import PRECISIONS, Bench, Program
from tna_jax import ensemble, models, networks
from tna_jax import placement as placement_lib
from tna_jax.connectivity import one_pass
from tna_jax.ensemble import turns
from tna_jax.programs.system import memory

TORCH_PRECISIONS = {"tf32": "high", "bf16": "medium", "float32": "highest"}
SHAPES = {"mlp": (784,), "cnn": (32, 32, 3), "resnet20": (32, 32, 3)}
MLP = (784, 512, 512, 10)
MULTIPLY_ADDS = sum(a * b for a, b in itertools.pairwise(MLP))
FLOPS = {"mlp": 6 * MULTIPLY_ADDS - 2 * MLP[0] * MLP[1], "cnn": 27.1e6, "resnet20": 244e6}
"""Of a training step for one image, as in `benchmarks.ensemble` and `benchmarks.convolutions`."""


@functools.cache
def images_of(name: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random stored images (uint8) and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (examples, *SHAPES[name]), np.uint8), rng.integers(0, 10, examples).astype(np.int32)


def network_of(name: str, precision: str, conv: str = "native"):
    """The network, and one model's parameters: random numbers of the usual sizes, made without compiling anything."""
    options = {"depth": len(MLP) - 2, "width": MLP[1]} if name == "mlp" else {"conv": conv}
    module = models.create(name, num_classes=10, dtype=jnp.bfloat16 if precision == "bf16" else None, **options)
    net, init = networks.linen(module, SHAPES[name], lambda x: x.astype(jnp.float32) / np.float32(255))
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return np.zeros(leaf.shape, np.float32)
        return rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))

    return net, jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0))[0])


def stacked(one, members: int):
    return jax.tree.map(lambda leaf: jnp.asarray(np.broadcast_to(leaf, (members, *leaf.shape))), one)


def ours(
    bench: Bench,
    name: str,
    precision: str,
    members: int,
    placement: placement_lib.Placement,
    facts: dict,
    conv: str = "native",
    batch: int | None = None,
    unroll: int = 1,
) -> Program:
    """Epochs of our own training; memory, compile time and instructions go into `facts` (not of `loop`: many programs).

    `unroll` steps stand in one iteration of the compiled loop: larger graphs for command buffers, fewer iterations.
    """
    net, one = network_of(name, precision, conv)
    batch = batch or bench.sizes.batch
    trainer = ensemble.Trainer(net, optax.sgd(0.01, momentum=0.9), batch, placement)
    rng = np.random.default_rng(1)
    mask = jax.tree.map(lambda leaf: rng.random(leaf.shape) >= 0.4, one)
    keys = jax.random.split(jax.random.key(0), members)
    made = ensemble.init_ensemble(trainer, stacked(one, members), keys, stacked(mask, members))
    mesh = placement_lib.mesh(jax.devices()[:1])
    examples = max(bench.sizes.steps(name, members, placement) * bench.sizes.batch // batch, 1) * batch
    data = placement_lib.replicate(tuple(jnp.asarray(part) for part in images_of(name, examples)), mesh)
    current, epochs = placement_lib.shard(made, mesh), itertools.count()

    def in_precision():
        return jax.default_matmul_precision(PRECISIONS[precision])

    if placement == "loop":

        def epoch(current, number):
            return ensemble.train_epoch(trainer, current, *data, number)
    else:
        start = time.perf_counter()
        with in_precision(), unrolled(unroll):
            program = ensemble.epoch_program(trainer, placement, mesh, True)  # what `train_epoch` runs, to see inside
            compiled = program.lower(current, *data, jnp.int32(0)).compile()
        ensemble.epoch_program.cache_clear()
        facts["compile_seconds"] = time.perf_counter() - start
        facts["memory"] = memory_of(compiled, trainer, current, data, placement)
        text = compiled.as_text() or ""
        facts["instructions"] = instructions(text)
        if bench.hlo and members > 1 and name != "mlp":
            bench.hlo.mkdir(parents=True, exist_ok=True)
            file = bench.hlo / f"{name}-{precision}-{members}-{placement}-{conv}.txt.gz"
            file.write_bytes(gzip.compress(text.encode()))

        def epoch(current, number):
            return compiled(current, *data, jnp.int32(number))

    def run():
        nonlocal current
        with in_precision():
            current, found = epoch(current, next(epochs))
        jax.block_until_ready((current, found))

    return Program(run, members * examples)


@contextlib.contextmanager
def unrolled(times: int) -> Iterator[None]:
    """Loops that are traced meanwhile have so many steps in an iteration."""
    scan = jax.lax.scan
    jax.lax.scan = functools.partial(scan, unroll=times) if times > 1 else scan
    try:
        yield
    finally:
        jax.lax.scan = scan


def memory_of(compiled, trainer, current, data, placement: str) -> dict[str, int]:
    """Bytes: what `tna_jax.programs.system.memory` predicts, and what XLA has planned."""
    members = current.data_keys.shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), current)
    need = memory.estimate(trainer, one, *data)
    predicted = members * need.kept + (members if placement == "vmap" else 1) * need.working + need.common
    result = {**need._asdict(), "predicted": predicted}
    planned = compiled.memory_analysis()
    if planned is not None:
        parts = {part: getattr(planned, f"{part}_size_in_bytes", 0) for part in ("argument", "output", "alias", "temp")}
        total = parts["argument"] + parts["output"] - parts["alias"] + parts["temp"]
        result |= parts | {"compiled": total}
    return result


OPCODE = re.compile(r"^\s*(?:ROOT )?\S+ = .*? ([a-z][a-z-]*)\(", re.MULTILINE)


def instructions(text: str) -> dict[str, int]:
    """How often each kind of convolution, matrix product, custom call and fusion stands in a compiled program's text."""
    counts: collections.Counter[str] = collections.Counter()
    for line in text.splitlines():
        match = OPCODE.match(line)
        if match is None or match[1] not in (
            "convolution",
            "custom-call",
            "dot",
            "fusion",
            "while",
            "transpose",
            "copy",
        ):
            continue
        words = [match[1]]
        if match[1] == "fusion":
            words += re.findall(r"kind=(k\w+)", line)[:1] + re.findall(r'"kind":"(__\w+\$?\w*)"', line)[:1]
        elif match[1] in ("custom-call", "convolution"):
            words += re.findall(r'custom_call_target="([^"]+)"', line)
            words += [f"{kind}={n}" for kind, n in re.findall(r"(feature_group_count|batch_group_count)=(\d+)", line)]
        counts[" ".join(words)] += 1
    return dict(counts.most_common())


def torch_alone(bench: Bench, name: str, precision: str) -> Program:
    """One model in eager PyTorch, with masked gradients."""
    import torch
    from torch import nn

    from benchmarks.torch_networks import NETWORKS

    cuda = torch.cuda.is_available()
    if jax.default_backend() == "gpu" and not cuda:
        raise RuntimeError("this PyTorch sees no CUDA device")
    if not cuda:
        torch.set_num_threads(1)  # only --smoke: its threads and JAX's get in each other's way
    device, images = torch.device("cuda" if cuda else "cpu"), name != "mlp"
    layout = torch.channels_last if images else torch.contiguous_format
    torch.manual_seed(0)
    if images:
        net = NETWORKS[name]()
    else:
        parts = [part for a, b in itertools.pairwise(MLP) for part in (nn.Linear(a, b), nn.ReLU())]
        net = nn.Sequential(*parts[:-1])
    net = net.to(device, memory_format=layout)
    parameters = list(net.parameters())
    trainable = [(torch.rand_like(p) >= 0.4).float() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=cuda)
    batch = bench.sizes.batch
    examples = bench.sizes.steps(name, 8 if name == "mlp" else 1, "one") * batch
    x, y = (torch.from_numpy(part).to(device) for part in images_of(name, examples))
    x, y = x.permute(0, 3, 1, 2) if images else x, y.long()

    def run():
        torch.set_float32_matmul_precision(TORCH_PRECISIONS[precision])
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        for index in torch.randperm(examples, device=device).split(batch):
            inputs = (x[index].float() / 255).contiguous(memory_format=layout)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = nn.functional.cross_entropy(net(inputs), y[index])
            optimizer.zero_grad()
            loss.backward()
            torch._foreach_mul_([p.grad for p in parameters], trainable)
            optimizer.step()
        if cuda:
            torch.cuda.synchronize()

    return Program(run, examples)


def training_makers(bench: Bench, name: str, precision: str, members: int) -> dict[str, Callable[[dict], Program]]:
    """The alternatives of a training case by name."""

    def make(placement, members=members, conv="native"):
        return lambda facts: ours(bench, name, precision, members, placement, facts, conv)

    if name == "mlp":
        placed = {"vmap": make("vmap"), "map": make("map")}
    else:
        placed = {
            "vmap_native": make("vmap"),
            "vmap_slices": make("vmap", conv="slices"),
            "map_native": make("map"),
            "loop_native": make("loop"),
        }
    return {"one": make("map", 1), "torch": lambda facts: torch_alone(bench, name, precision), **placed}


def way_makers(bench: Bench, name: str, precision: str, members: int) -> dict[str, Callable[[dict], Program]]:
    """What may bring the card nearer to its limit: larger batches, more steps in an iteration; the default beside them.

    A larger batch has fewer steps: its throughput counts, not what it learns.
    """

    def make(**options):
        return lambda facts: ours(bench, name, precision, members, placement, facts, **options)

    placement: placement_lib.Placement = "vmap" if name == "mlp" else "map"
    batches, unrolls = bench.sizes.batches, bench.sizes.unrolls
    return {
        placement: make(),
        **{f"{placement}, batch {batch}": make(batch=batch) for batch in batches},
        **{f"{placement}, {unroll} steps an iteration": make(unroll=unroll) for unroll in unrolls},
    }


def forget() -> None:
    """Frees what a case held."""
    ensemble.epoch_program.cache_clear()
    turns.step_programs.cache_clear()
    one_pass.path_program.cache_clear()
    jax.clear_caches()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()

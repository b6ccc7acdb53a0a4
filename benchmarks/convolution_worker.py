"""A process that takes training steps of ResNet20 when it is told to: on one core, by one way to convolve (see `convolution_ways`).

`python -m benchmarks.convolution_worker CORE [WAY...] [parts]` compiles, writes the losses after five steps as a line of JSON, and then answers each line
`WAY STEPS` with the seconds that the processor took, whatever else it did meanwhile. With `parts` the line says how fast single convolutions are; a batch has
`TNA_BENCH_BATCH` images. The ways differ in 3x3 convolutions of stride 1, all but 5 of the 21, or in the program around them.
"""

import json
import os
import sys
import time
from collections.abc import Callable

BATCH, MEMBERS = int(os.environ.get("TNA_BENCH_BATCH", "64")), 4
Step = Callable[[int], None]


def torch_step() -> Step:
    """PyTorch's training step, eager, channels last, one thread."""
    import torch

    from benchmarks.torch_networks import NETWORKS

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = NETWORKS["resnet20"]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (BATCH,))

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def jax_steps(ways: list[str]) -> tuple[dict[str, Step], dict[str, float]]:
    """Steps by way, and the loss after five steps, which all ways share to rounding."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from benchmarks import winograd
    from tna_jax import models
    from tna_jax.models import layers, xla_cpu

    jax.config.update("jax_compilation_cache_dir", os.environ.get("TNA_BENCH_CACHE"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    native = layers._convolve

    def simple(kernel: jax.Array, strides: tuple[int, int]) -> bool:
        return kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1)

    def other(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, k, s, p: function(x, k, s, p) if simple(k, s) else native(x, k, s, p)

    def laid_out(dimensions: tuple[str, str, str]) -> Callable[..., jax.Array]:
        def convolve(x: jax.Array, k: jax.Array, s: tuple[int, int], p: str) -> jax.Array:
            there = ["NHWC".index(axis) for axis in dimensions[0]]
            kernel = k.transpose(["HWIO".index(axis) for axis in dimensions[1]])
            out = jax.lax.conv_general_dilated(x.transpose(there), kernel, s, p, dimension_numbers=dimensions)
            return out.transpose([dimensions[2].index(axis) for axis in "NHWC"])

        return convolve

    def by_blocks(x: jax.Array, k: jax.Array, s: tuple[int, int], p: str) -> jax.Array:
        """Slices of a few images at a time, so that their nine copies stay in a core's cache."""
        images = min(len(x), 2 ** max(0, (2**15 // x[0].size).bit_length() - 1))
        blocks = x.reshape(-1, images, *x.shape[1:])
        out = jax.lax.map(lambda block: xla_cpu.convolve_by_slices(block, k, s, p), blocks)
        return out.reshape(len(x), *out.shape[2:])

    convolutions = {
        "native": native,
        "slices": xla_cpu.convolve_by_slices,
        "slices_3x3": other(xla_cpu.convolve_by_slices),
        "slices_by_blocks": other(by_blocks),
        "winograd_2": other(lambda x, k, s, p: winograd.convolve(x, k, 2)),
        "winograd_4": other(lambda x, k, s, p: winograd.convolve(x, k, 4)),
        "nchw": other(laid_out(("NCHW", "OIHW", "NCHW"))),
        "batch_last": other(laid_out(("CHWN", "IHWO", "CHWN"))),
    }
    module = models.create("resnet20", num_classes=10)
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.random((BATCH, 32, 32, 3), np.float32)), jnp.asarray(rng.integers(0, 10, BATCH))
    start = module.init(jax.random.key(0), x[:1])["params"]
    optimizer = optax.sgd(0.01, momentum=0.9)

    def made(way: str) -> tuple[Step, Callable[[], float]]:
        convolution, _, together = way.partition("/")
        layers._convolve = convolutions[convolution]

        def step(params, state, x, y):
            def loss(p):
                logits = module.apply({"params": p}, x)
                return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, value

        tree = (start, optimizer.init(start))
        if together:
            tree = jax.tree.map(lambda leaf: jnp.stack([leaf] * MEMBERS), tree)
        whole = jax.vmap(step, (0, 0, None, None)) if together else step
        program = jax.jit(whole).lower(*tree, x, y).compile()
        held = [*tree, None]

        def run(steps: int) -> None:
            for _ in range(steps):
                held[:] = program(*held[:2], x, y)
            jax.block_until_ready(held)

        return run, lambda: float(np.mean(held[2]))

    steps, losses = {}, {}
    for way in ways:
        steps[way], value = made(way)
        steps[way](5)
        losses[way] = value()
    return steps, losses


STAGES = {"16 channels": (32, 16), "32 channels": (16, 32), "64 channels": (8, 64)}
"""Side and channels of the 3x3 convolutions of stride 1 in the three stages of ResNet20."""


def timed(run: Callable[[], object]) -> float:
    """Processor seconds of a call: the best of five, after one."""
    run()
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return best


def torch_parts() -> dict[str, dict[str, Callable[[], object]]]:
    """PyTorch's convolution and its gradients by stage, channels last, and a large product."""
    import torch

    of = torch.nn.grad
    work: dict[str, dict[str, Callable[[], object]]] = {}
    for stage, (side, channels) in STAGES.items():
        x, g = (torch.rand(BATCH, channels, side, side).to(memory_format=torch.channels_last) for _ in range(2))
        w = torch.rand(channels, channels, 3, 3).to(memory_format=torch.channels_last)
        work[stage] = {
            "forward": lambda x=x, w=w: torch.conv2d(x, w, padding=1),
            "input gradient": lambda x=x, w=w, g=g: of.conv2d_input(x.shape, w, g, padding=1),
            "kernel gradient": lambda x=x, w=w, g=g: of.conv2d_weight(x, w.shape, g, padding=1),
        }
    a = torch.rand(1024, 1024)
    return work | {"product": {"product": lambda: a @ a}}


def jax_parts() -> dict[str, dict[str, Callable[[], object]]]:
    """XLA's convolution and its gradients by stage, and a large product."""
    import jax
    import jax.numpy as jnp

    def convolve(x, w):
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ready(function, *arguments):
        program = jax.jit(function)
        return lambda: program(*arguments).block_until_ready()

    work: dict[str, dict[str, Callable[[], object]]] = {}
    for stage, (side, channels) in STAGES.items():
        x, g = (jax.random.normal(jax.random.key(i), (BATCH, side, side, channels)) for i in range(2))
        w = jax.random.normal(jax.random.key(2), (3, 3, channels, channels))
        work[stage] = {
            "forward": ready(convolve, x, w),
            "input gradient": ready(lambda g, x, w: jax.vjp(lambda x: convolve(x, w), x)[1](g)[0], g, x, w),
            "kernel gradient": ready(lambda g, x, w: jax.vjp(lambda w: convolve(x, w), w)[1](g)[0], g, x, w),
        }
    a = jnp.ones((1024, 1024))
    return work | {"product": {"product": ready(jnp.dot, a, a)}}


def gflops(work: dict[str, dict[str, Callable[[], object]]]) -> dict[str, dict[str, float]]:
    """Giga-operations a second of each part: where a step's time goes."""
    flops = {stage: 2 * BATCH * side**2 * 9 * channels**2 for stage, (side, channels) in STAGES.items()}
    flops["product"] = 2 * 1024**3
    return {
        stage: {name: flops[stage] / timed(run) / 1e9 for name, run in runs.items()} for stage, runs in work.items()
    }


def main() -> None:
    core, *ways = sys.argv[1:]
    with_parts = "parts" in ways
    ways = [way for way in ways if way != "parts"]
    os.sched_setaffinity(0, {int(core)})
    if ways == ["torch"]:
        import torch

        steps, facts = {"torch": torch_step()}, {"version": torch.__version__}
        steps["torch"](2)
        facts["gflops"] = gflops(torch_parts())
    else:
        import jax

        steps, losses = jax_steps(ways) if ways else ({}, {})
        facts = {"version": jax.__version__, "losses": losses}
        facts |= {"gflops": gflops(jax_parts())} if with_parts else {}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        way, count = line.split()
        begun = time.process_time()
        steps[way](int(count))
        print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    main()

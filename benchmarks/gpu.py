"""One GPU: what the placements give there, and how far they are from PyTorch and from the card's own speed.

Hardware: one NVIDIA GPU that JAX (`jax[cuda12]`) and PyTorch with CUDA share. About 8 minutes on an H100 expected for the most
models (`--models 256,32`), up to 25 for all, unmeasured; compilation takes most of it. It has been run on the CPU only so far
(`--smoke`, under a minute), to see that it works.

    python -m benchmarks.gpu [--models 256,32] [--sections mlp,path] [--budget-seconds 500] [--output FILE] [--hlo FOLDER]

Four sections; the cases that matter most come first in each, and the file is written after every case:

- `mlp`: 784-512-512-10, batch 128, on 60,000 random images, `vmap` and `map` of up to 256 models. Goal: ten MNIST epochs of
  256 models within 3 times the arithmetic limit.
- `path`: 64 pairs x 25 alphas of that MLP on 10,000 images. Goal: 50 % of the limit of the forward passes.
- `convolutions`: the CNN and ResNet20 on 32x32x3, batch 128, `vmap` with XLA's (then grouped) convolution and with slices, `map`
  and `loop`. Goal: 32 ResNet20 at 5 times the throughput of one after the other.
- `instructions`: what the faster and the slower `vmap` of the most ResNet20s were compiled to.

`one` is one model trained alone by our program, `torch` one in eager PyTorch (masked gradients, fused SGD, no CUDA graphs):
M models one after the other take M times as long, so their throughput (models x images per second) is that of one. The limit
is the rate of one large matrix product of ones in JAX (`product_rate`), same run and precision: an upper one, as a card under
its power limit multiplies ones faster than random numbers. Precisions: float32 in full, tf32, and bf16 (parameters float32;
PyTorch: autocast). Alternatives of a case take turns; a failure (out of memory, no PyTorch) is recorded as text in its place.

The rule of `--placement auto` for GPUs (`vmap`, in `tna_jax.placement.resolve`) is to be revisited with the result.
"""

import argparse
import collections
import dataclasses
import functools
import gc
import gzip
import itertools
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.85")  # the rest of the card is PyTorch's

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.table import Table

from benchmarks.timing import RESULTS, paired, ratio
from tna_jax import connectivity, ensemble, models, network, placement
from train import hosts, memory
from train.devices import product_rate
from train.progress import wide_console
from train.results import provenance, write_json

SECTIONS = ("mlp", "path", "convolutions", "instructions")
PRECISIONS = {"tf32": "tensorfloat32", "bf16": "default", "float32": "highest"}
"""Of JAX's matrix products; in the bf16 case the networks compute in bfloat16."""
TORCH_PRECISIONS = {"tf32": "high", "bf16": "medium", "float32": "highest"}
SHAPES = {"mlp": (784,), "cnn": (32, 32, 3), "resnet20": (32, 32, 3)}
MLP = (784, 512, 512, 10)
MNIST, EPOCHS = 60_000, 10
MULTIPLY_ADDS = sum(a * b for a, b in itertools.pairwise(MLP))
FLOPS = {"mlp": 6 * MULTIPLY_ADDS - 2 * MLP[0] * MLP[1], "cnn": 27.1e6, "resnet20": 244e6}
"""Of a training step for one image, as in `benchmarks.ensemble` and `benchmarks.convolutions`."""
GOALS = {"ten_epochs_times_limit": 3, "path_share_of_limit": 0.5, "resnet20_times_one": 5}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch: int = 128
    mlp: tuple[int, ...] = (256, 64, 8, 1)
    convolutions: tuple[int, ...] = (32, 8, 1)
    networks: tuple[str, ...] = ("resnet20", "cnn")
    pairs: int = 64
    points: int = 25
    test: int = 10_000
    rounds: int = 5
    seconds: float = 12.0
    """Of a case's rounds; a slow case has fewer rounds, at least three."""
    epoch: int = MNIST // 128
    """Steps of the MLP in `vmap`; at most so many of the others."""
    model_steps: tuple[tuple[str, int], ...] = (("mlp", 4000), ("cnn", 800), ("resnet20", 320))
    """Steps of all models together, where they take turns (and with convolutions)."""
    product: int | None = None

    def steps(self, name: str, members: int, how: str) -> int:
        if name == "mlp" and how == "vmap":
            return self.epoch
        least, most = (15, self.epoch) if name == "mlp" else (10, 100)
        return min(self.epoch, max(least, min(most, dict(self.model_steps)[name] // members)))


SMOKE = Sizes(4, (2,), (2,), ("cnn",), 2, 3, 50, 1, 5.0, 2, product=256)


@dataclasses.dataclass
class Program:
    """An alternative that is ready: `run` does `images` (models x images) and returns when they are done."""

    run: Callable[[], Any]
    images: int


class Bench:
    """One run: its sizes, its time, what it found, and where that is written."""

    def __init__(self, sizes: Sizes, precisions: list[str], budget: float, output: Path, hlo: Path | None):
        self.sizes, self.precisions, self.output, self.hlo = sizes, precisions, output, hlo
        self.end = time.perf_counter() + budget
        self.console = wide_console()
        self.failures = 0
        self.rates: dict[str, float] = {}
        self.found: dict[str, Any] = {}
        self.head = {"provenance": provenance([0]), "torch": torch_facts(), "goals": GOALS, "sizes": sizes}

    @property
    def spent(self) -> bool:
        return time.perf_counter() > self.end

    def write(self) -> None:
        write_json(self.output, {**self.head, "matrix_product_flops": self.rates, "sections": self.found})

    def rate(self, precision: str) -> float:
        """Matrix-product rate of the card, measured once."""
        if precision not in self.rates:
            with jax.default_matmul_precision(PRECISIONS[precision]):
                dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
                self.rates[precision] = product_rate(dtype, self.sizes.product)
        return self.rates[precision]

    def attempt(self, place: dict[str, Any], what: str, work: Callable[[], Any], begun: bool = False) -> Any:
        """The result of `work`; None where it fails or, unless `begun`, the budget is spent: `place` then says so."""
        if self.spent and not begun:
            place["not_started"] = "the budget is spent"
            return None
        try:
            return work()
        except Exception as error:
            self.failures += 1
            place["error"] = f"{type(error).__name__}: {str(error)[:400]}"
            self.console.print(f"{what}: {place['error']}", markup=False)
            return None

    def compare(self, what: str, makers: dict[str, Callable[[dict[str, Any]], Program]], flops: float, precision: str):
        """Makes, warms up and times alternatives in turns; a maker also writes what it knows into its alternative's result.

        Returns:
          By alternative: throughput, times `one` and `torch`, share of the limit, seconds of the rounds; or its error.
        """
        results: dict[str, dict[str, Any]] = {name: {} for name in makers}
        rate = self.attempt(results, what, lambda: self.rate(precision))
        programs, warm = {}, 0.0
        for name, make in makers.items():

            def warmed(make=make, facts=results[name]):
                start = time.perf_counter()
                program = make(facts)
                program.run()  # `loop` compiles here, PyTorch chooses its convolutions
                facts["ready_seconds"] = time.perf_counter() - start
                start = time.perf_counter()
                program.run()
                return program, time.perf_counter() - start

            made = self.attempt(results[name], f"{what}, {name}", warmed)
            if made is not None:
                programs[name] = made[0]
                warm += made[1]
        if not programs:
            return results
        rounds = min(self.sizes.rounds, max(3, int(self.sizes.seconds / warm)))
        runs = {name: program.run for name, program in programs.items()}
        seconds = self.attempt(results, what, lambda: paired(runs, rounds, warmup=0), begun=True)
        for name, program in programs.items() if seconds else ():
            speed = program.images / statistics.median(seconds[name])
            results[name] |= {
                "model_images_per_second": speed,
                "seconds": seconds[name],
                "model_images": program.images,
            }
            if rate:
                results[name]["share_of_limit"] = speed * flops / rate
            for other in {"one", "torch"} & programs.keys() - {name}:
                times = ratio(seconds, other, name) * program.images / programs[other].images
                results[name][f"times_{other}"] = times
        return results

    def show(self, title: str, results: dict[str, Any]) -> None:
        """The table of a case."""
        table = Table(title=title, title_justify="left")
        heads = (
            "alternative",
            "models x images / s",
            "times one",
            "times torch",
            "of limit",
            "GB predicted",
            "GB",
            "ready s",
        )
        for head in heads:
            table.add_column(head, justify="left" if head == "alternative" else "right")
        for name, result in results.items():
            if not isinstance(result, dict):
                continue
            if "model_images_per_second" not in result:
                table.add_row(name, str(result.get("error") or result.get("not_started", "-"))[:50])
                continue
            held = result.get("memory", {})
            gigabytes = [held[key] / memory.GB if key in held else None for key in ("predicted", "compiled")]
            table.add_row(
                name,
                f"{result['model_images_per_second']:,.0f}",
                *(f"{result[key]:.2f}" if key in result else "-" for key in ("times_one", "times_torch")),
                f"{result['share_of_limit']:.1%}" if "share_of_limit" in result else "-",
                *(f"{value:.2f}" if value is not None else "-" for value in gigabytes),
                f"{result['ready_seconds']:.1f}",
            )
        self.console.print(table)


def torch_facts() -> dict[str, Any]:
    """PyTorch's version and card, or why there is none."""
    try:
        import torch
    except ImportError as error:
        return {"error": str(error)}
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"version": torch.__version__, "cuda": torch.version.cuda, "card": card}


@functools.cache
def images_of(name: str, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Random stored images (uint8) and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (examples, *SHAPES[name]), np.uint8), rng.integers(0, 10, examples).astype(np.int32)


def network_of(name: str, precision: str, conv: str = "native"):
    """The network, and one model's parameters: random numbers of the usual sizes, made without compiling anything."""
    options = {"depth": len(MLP) - 2, "width": MLP[1]} if name == "mlp" else {"conv": conv}
    module = models.create(name, num_classes=10, dtype=jnp.bfloat16 if precision == "bf16" else None, **options)
    net, init = network.linen(module, SHAPES[name], lambda x: x.astype(jnp.float32) / np.float32(255))
    rng = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) < 2:
            return np.zeros(leaf.shape, np.float32)
        return rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))

    return net, jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0))[0])


def stacked(one, members: int):
    return jax.tree.map(lambda leaf: jnp.asarray(np.broadcast_to(leaf, (members, *leaf.shape))), one)


def ours(
    bench: Bench, name: str, precision: str, members: int, how: placement.Placement, facts: dict, conv: str = "native"
) -> Program:
    """Epochs of our own training; memory, compile time and instructions go into `facts` (not of `loop`: many programs)."""
    net, one = network_of(name, precision, conv)
    trainer = ensemble.Trainer(net, optax.sgd(0.01, momentum=0.9), bench.sizes.batch, how)
    rng = np.random.default_rng(1)
    mask = jax.tree.map(lambda leaf: rng.random(leaf.shape) >= 0.4, one)
    keys = jax.random.split(jax.random.key(0), members)
    made = ensemble.init_ensemble(trainer, stacked(one, members), keys, stacked(mask, members))
    over = placement.mesh(jax.devices()[:1])
    examples = bench.sizes.steps(name, members, how) * bench.sizes.batch
    data = placement.replicate(tuple(jnp.asarray(part) for part in images_of(name, examples)), over)
    current, epochs = placement.split(made, over), itertools.count()

    def in_precision():
        return jax.default_matmul_precision(PRECISIONS[precision])

    if how == "loop":

        def epoch(current, number):
            return ensemble.train_epoch(trainer, current, *data, number)
    else:
        start = time.perf_counter()
        with in_precision():
            program = ensemble.epoch_program(trainer, how, over, True)  # what `train_epoch` runs, to see inside
            compiled = program.lower(current, *data, jnp.int32(0)).compile()
        facts["compile_seconds"] = time.perf_counter() - start
        facts["memory"] = memory_of(compiled, trainer, current, data, how)
        text = compiled.as_text() or ""
        facts["instructions"] = instructions(text)
        if bench.hlo and members > 1 and name != "mlp":
            bench.hlo.mkdir(parents=True, exist_ok=True)
            file = bench.hlo / f"{name}-{precision}-{members}-{how}-{conv}.txt.gz"
            file.write_bytes(gzip.compress(text.encode()))

        def epoch(current, number):
            return compiled(current, *data, jnp.int32(number))

    def run():
        nonlocal current
        with in_precision():
            current, found = epoch(current, next(epochs))
        jax.block_until_ready((current, found))

    return Program(run, members * examples)


def memory_of(compiled, trainer, current, data, how: str) -> dict[str, int]:
    """Bytes: what `train.memory` predicts, and what XLA has planned."""
    members = current.order.shape[0]
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), current)
    need = memory.need(trainer, one, *data)
    predicted = members * need.kept + (members if how == "vmap" else 1) * need.working + need.common
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

    def make(how, members=members, conv="native"):
        return lambda facts: ours(bench, name, precision, members, how, facts, conv)

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


def training_case(bench: Bench, name: str, precision: str, members: int) -> dict[str, Any]:
    what = f"{name}, {members} models, {precision}"
    if bench.spent:
        return {"not_started": "the budget is spent"}
    results = bench.compare(what, training_makers(bench, name, precision, members), FLOPS[name], precision)
    goal = f" (goal: {GOALS['resnet20_times_one']} times one)" if (name, members) == ("resnet20", 32) else ""
    bench.show(what + goal, results)
    forget()
    return results


def forget() -> None:
    """Frees what a case held."""
    ensemble.epoch_program.cache_clear()
    ensemble._step_programs.cache_clear()
    connectivity._path_program.cache_clear()
    jax.clear_caches()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def mlp(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 1."""
    for members, precision in itertools.product(bench.sizes.mlp, bench.precisions):
        results = cases[f"mlp/{members}/{precision}"] = training_case(bench, "mlp", precision, members)
        if members == max(bench.sizes.mlp) and precision in bench.rates:
            images = members * MNIST * EPOCHS
            limit = images * FLOPS["mlp"] / bench.rates[precision]
            for how in ("vmap", "map"):
                if "model_images_per_second" in results.get(how, {}):
                    took = images / results[how]["model_images_per_second"]
                    found = {"seconds": took, "limit_seconds": limit, "times_limit": took / limit}
                    results[how]["ten_epochs_of_mnist"] = found
                    bench.console.print(
                        f"{EPOCHS} MNIST epochs of {members} models, {precision}, {how}: {took:.1f} s projected, "
                        f"{took / limit:.2f} times the limit of {limit:.1f} s (goal: {GOALS['ten_epochs_times_limit']})"
                    )
        bench.write()


def convolutions(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 2."""
    sizes = bench.sizes
    for members, name, precision in itertools.product(sizes.convolutions, sizes.networks, bench.precisions):
        cases[f"{name}/{members}/{precision}"] = training_case(bench, name, precision, members)
        bench.write()


def path(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 3. `map_whole` takes all images as one batch, the others 1,000 at a time."""
    sizes = bench.sizes
    ends = next(m for m in itertools.count(2) if m * (m - 1) // 2 >= sizes.pairs)
    pairs, alphas = connectivity.pairs(ends)[: sizes.pairs], connectivity.grid(sizes.points)
    for precision in bench.precisions:

        def make(how, batch, precision=precision):
            def made(facts):
                net, one = network_of("mlp", precision)
                members = stacked(one, ends)
                data = {"test": tuple(jnp.asarray(part) for part in images_of("mlp", sizes.test))}

                def run():  # its result is NumPy: it is done
                    with jax.default_matmul_precision(PRECISIONS[precision]):
                        connectivity.evaluate_path(net, members, pairs, alphas, data, batch_size=batch, how=how)

                return Program(run, len(pairs) * len(alphas) * sizes.test)

            return made

        makers = {"vmap": make("vmap", 1000), "map": make("map", 1000), "map_whole": make("map", sizes.test)}
        what = f"path of {len(pairs)} pairs x {len(alphas)} points, {precision}"
        results = cases[f"path/{precision}"] = bench.compare(what, makers, 2 * MULTIPLY_ADDS, precision)
        bench.show(f"{what} (goal: {GOALS['path_share_of_limit']:.0%} of the limit)", results)
        forget()
        bench.write()


def instruction_counts(bench: Bench, cases: dict[str, Any]) -> None:
    """Section 4: of the first network and the most models."""
    members, name = max(bench.sizes.convolutions, default=0), next(iter(bench.sizes.networks), "")
    for precision in bench.precisions if members and name else ():
        key = f"{name}/{members}/{precision}"
        known = bench.found.get("convolutions", {}).get(key)
        if known is None:
            makers = training_makers(bench, name, precision, members)
            wanted = {how: makers[how] for how in ("vmap_native", "vmap_slices")}
            known = bench.compare(key, wanted, FLOPS[name], precision)
            bench.show(f"{key}, vmap", known)
            forget()
        both = {how: known.get(how, {}) for how in ("vmap_native", "vmap_slices")}
        order = sorted(both, key=lambda how: -both[how].get("model_images_per_second", 0))  # one that failed has lost
        ranked = dict(zip(("winner", "loser"), order, strict=True))
        cases[key] = {role: {"alternative": how, **both[how]} for role, how in ranked.items()}
        table = Table(title=f"{members} {name} by vmap, {precision}: instructions", title_justify="left")
        table.add_column("instruction")
        for role, how in ranked.items():
            table.add_column(f"{role}: {how}", justify="right")
        counts = [both[how].get("instructions", {}) for how in order]
        for kind in sorted(set().union(*counts)):
            table.add_row(kind, *(str(count.get(kind, 0)) for count in counts))
        bench.console.print(table)
        bench.write()


def main() -> int:
    """The program; returns its exit code, 1 for failures under `--smoke`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of " + ",".join(SECTIONS))
    parser.add_argument("--precisions", help=f"of {','.join(PRECISIONS)}; default: all, --smoke: bf16")
    parser.add_argument("--networks", help="with convolutions, of resnet20,cnn; default: both, --smoke: cnn")
    parser.add_argument("--models", help="numbers of models to take, of 256,64,8,1 (mlp) and 32,8,1 (convolutions)")
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="start nothing new after these")
    parser.add_argument(
        "--output", type=Path, help="default: gpu.json in benchmarks/results; --smoke: a temporary file"
    )
    parser.add_argument("--hlo", type=Path, help="folder for the compiled programs with convolutions")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on any backend: does it work?")
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else Sizes()
    sections = options.sections.split(",")
    precisions = (options.precisions or ("bf16" if options.smoke else ",".join(PRECISIONS))).split(",")
    networks = options.networks.split(",") if options.networks else sizes.networks
    for given, known in ((sections, SECTIONS), (precisions, PRECISIONS), (networks, Sizes.networks)):
        if set(given) - set(known):
            parser.error(f"unknown: {', '.join(set(given) - set(known))}; known: {', '.join(known)}")
    sizes = dataclasses.replace(sizes, networks=tuple(networks))
    if options.models:
        chosen = {int(number) for number in options.models.split(",")}
        kept = {part: tuple(m for m in getattr(sizes, part) if m in chosen) for part in ("mlp", "convolutions")}
        sizes = dataclasses.replace(sizes, **kept)
    hosts.configure(cpu_devices=1)
    usual = Path(tempfile.gettempdir()) / "gpu_smoke.json" if options.smoke else RESULTS / "gpu.json"
    output = options.output or usual
    output.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(sizes, precisions, options.budget_seconds, output, options.hlo)
    bench.console.print(f"{hosts.describe()}; PyTorch: {bench.head['torch']}", markup=False)
    runs = {"mlp": mlp, "path": path, "convolutions": convolutions, "instructions": instruction_counts}
    for name in (name for name in SECTIONS if name in sections):
        cases = bench.found[name] = {}
        bench.attempt(cases, name, lambda name=name, cases=cases: runs[name](bench, cases))
        bench.write()
    bench.console.print(f"{output}: {bench.failures} failed")
    return 1 if options.smoke and bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""A run of the benchmark: how much is measured, alternatives in turns, what came out."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.table import Table

from benchmarks.timing import paired, ratio
from tna_jax.io.json_files import write_json
from tna_jax.io.provenance import provenance
from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.devices.run import product_rate
from tna_jax.programs.system import memory

PRECISIONS = {"tf32": "tensorfloat32", "bf16": "default", "float32": "highest"}
"""Of JAX's matrix products; in the bf16 case the networks compute in bfloat16."""
GOALS = {"ten_epochs_times_limit": 3, "path_share_of_limit": 0.5, "resnet20_times_one": 5}
MNIST, EPOCHS = 60_000, 10


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
    batches: tuple[int, ...] = (512, 1024)
    unrolls: tuple[int, ...] = (4, 8)

    def steps(self, name: str, members: int, placement: str) -> int:
        if name == "mlp" and placement == "vmap":
            return self.epoch
        least, most = (15, self.epoch) if name == "mlp" else (10, 100)
        return min(self.epoch, max(least, min(most, dict(self.model_steps)[name] // members)))


SMOKE = Sizes(4, (2,), (2,), ("cnn",), 2, 3, 50, 1, 5.0, 2, product=256, batches=(8,), unrolls=(2,))


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

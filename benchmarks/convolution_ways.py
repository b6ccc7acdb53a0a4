"""Training steps of ResNet20 on one core by every way to convolve that was thought of, against XLA's convolution as `tna` runs it.

Each row is the throughput against the first one, which it took turns with: processes that wait for each other, one for each kind of
kernels, flags and version of jaxlib, on one core, in seconds of the processor. `JAXLIBS=0.11:/path/to/python,0.12:/path/to/python` adds other environments, `TORCH=/path/to/python`
PyTorch (eager, channels last, one thread). What 4 members at once do (`.../4`) counts as four steps. `ROUNDS` of `STEPS` steps each.

    python -m benchmarks.convolution_ways [CORE...]         twenty minutes, most of it compilation; TNA_BENCH_CACHE=FOLDER keeps the programs
    python -m benchmarks.convolution_ways parts [CORE...]   two minutes: single convolutions of each stage and their gradients, by the same environments
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from benchmarks.convolution_worker import BATCH, MEMBERS
from benchmarks.timing import quartiles, ratio, report
from tna_jax import backend

ROUNDS, STEPS = 5, 1
FIRST = "native"
OTHERS = (
    "slices", "slices_3x3", "slices_by_blocks", "nchw", "batch_last", "winograd_2",
    "slices/4",
)  # fmt: skip


class Worker:
    """A process that compiled some ways and takes steps when told."""

    def __init__(self, python: str, core: int, ways: list[str], flags: str) -> None:
        command = [python, "-m", "benchmarks.convolution_worker", str(core), *ways]
        environment = os.environ | {"XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "2", "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.facts: dict[str, Any] = {}

    def ready(self) -> bool:
        """Waits until everything is compiled; whether that worked."""
        line = self.process.stdout.readline()
        if line:
            self.facts = json.loads(line)
            return True
        self.facts = {"error": (self.process.stderr.read().strip().splitlines() or [""])[-1][:200]}
        return False

    def seconds(self, way: str, steps: int) -> float:
        self.process.stdin.write(f"{way} {steps}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextlib.contextmanager
def workers(cores: list[int], chosen: dict[str, tuple[str, list[str], str]]) -> Iterator[dict[str, Worker]]:
    """By name: (python, ways, flags); all compile at once, each on one of the cores."""
    started: dict[str, Worker] = {}
    try:
        for i, (name, (python, ways, flags)) in enumerate(chosen.items()):
            started[name] = Worker(python, cores[i % len(cores)], ways, flags)
        for name, worker in started.items():
            print(name, worker.ready(), worker.facts, flush=True)
        yield started
    finally:
        for worker in started.values():
            worker.process.kill()
            worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
                pipe.close()


def environments() -> dict[str, tuple[str, bool]]:
    """By name: the Python of each version of jaxlib, and whether YNN's kernels are switched off there."""
    pythons = dict(pair.split(":", 1) for pair in filter(None, os.environ.get("JAXLIBS", "").split(",")))
    pythons = {jax.__version__.rpartition(".")[0]: sys.executable} | pythons
    return {
        f"jaxlib {version}{kernels}": (python, not kernels)
        for version, python in pythons.items()
        for kernels in ("", ", YNN's kernels")
    }


def parts(core: int) -> None:
    """Writes `convolution_parts.json`: one process after the other, so that none slows the next one down."""
    chosen = {
        name: (python, ["parts"], backend.YNN_OFF if off else "") for name, (python, off) in environments().items()
    }
    if os.environ.get("TORCH"):
        chosen["PyTorch"] = (os.environ["TORCH"], ["torch"], "")
    facts: dict[str, Any] = {}
    for name, row in chosen.items():
        with workers([core], {name: row}) as started:
            facts[name] = started[name].facts
    report("convolution_parts", {
        "unit": f"10^9 operations a second of the processor, one core, batch {BATCH}, best of five",
        "command": "python -m benchmarks.convolution_ways parts",
        "rows": {name: {key: row[key] for key in ("version", "gflops")} for name, row in facts.items() if "error" not in row},
        "failed": {name: row for name, row in facts.items() if "error" in row},
    })  # fmt: skip


def rows() -> dict[str, tuple[str, list[str], str]]:
    """The processes."""
    off, here = backend.YNN_OFF, sys.executable
    chosen = {"here": (here, [FIRST, "parts"], off)}
    chosen |= {way: (here, [way], off) for way in OTHERS}
    chosen |= {f"YNN's kernels, {way}": (here, [way], "") for way in (FIRST,)}
    others = [(name, *row) for name, row in environments().items() if row[0] != here]
    chosen |= {name: (python, [FIRST], off if is_off else "") for name, python, is_off in others}
    if os.environ.get("TORCH"):
        chosen["PyTorch"] = (os.environ["TORCH"], ["torch"], "")
    return chosen


def main() -> None:
    words = sys.argv[1:]
    cores = [int(word) for word in words if word != "parts"] or sorted(os.sched_getaffinity(0))
    if "parts" in words:
        parts(cores[0])
        return
    folder = os.environ.setdefault("TNA_BENCH_CACHE", os.path.join(tempfile.gettempdir(), "convolution_ways"))
    os.makedirs(folder, exist_ok=True)
    chosen = rows()
    with workers(cores, chosen) as started:
        able = {name: worker for name, worker in started.items() if "error" not in worker.facts}
        seconds: dict[str, list[float]] = {name: [] for name in able}
        for turn in range(ROUNDS + 1):
            for name, worker in able.items():
                way = chosen[name][1][0]
                took = worker.seconds(way, STEPS) / (MEMBERS if way.endswith(f"/{MEMBERS}") else 1)
                seconds[name] += [took] if turn else []
        result = {
            name: {
                "times_first": ratio(seconds, "here", name),
                "quartiles": quartiles(seconds, "here", name),
                "images_per_second": BATCH * STEPS / statistics.median(seconds[name]),
                **started[name].facts,
            }
            for name in able
        }
        failed = {name: worker.facts for name, worker in started.items() if name not in able}
    report(
        "convolution_ways",
        {"batch": BATCH, "members": MEMBERS, "rows": result, "failed": failed, "seconds": seconds},
    )


if __name__ == "__main__":
    main()

"""From the start of `tna lmc` (the demo: 135 models in 100 pairs) to the bar that counts epochs: fresh processes, programs compiled before.

Goal: 5 s. In seconds of the processor, which other work on the machine disturbs less than those of the clock; both are kept.
`python -m benchmarks.start [ROUNDS] [NAME=FOLDER ...]`: each FOLDER holds another version of the package, which takes turns with this one.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import quartiles, ratio, report

HERE = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, sys, time
begun = time.perf_counter()
sys.path.insert(0, sys.argv[1])
from tna_jax.programs.cli import progress
from tna_jax.programs.cli.main import main

def shown(bar):
    import jax
    print("bar", time.process_time(), time.perf_counter() - begun, jax.__version__, flush=True)
    os._exit(0)  # nothing has been trained

progress.TrainingBar.__enter__ = shown
sys.exit(main(["lmc", "--out", sys.argv[2]]))
"""


def seconds_to_bar(package: Path) -> tuple[float, float]:
    """Seconds of the processor and of the clock of a fresh process that runs the package of a folder, up to the bar."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-c", PROGRAM, str(package), f"{folder}/run"]
        ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=os.environ)
    line = next((line for line in ran.stdout.splitlines() if line.startswith("bar ")), None)
    if line is None:
        raise RuntimeError(f"tna lmc did not come to its bar:\n{ran.stderr}")
    _, processor, clock, _ = line.split()
    return float(processor), float(clock)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    packages = {"here": HERE} | {
        name: Path(folder).resolve() for name, folder in (word.split("=") for word in sys.argv[2:])
    }
    for package in packages.values():
        seconds_to_bar(package)  # compiles
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in packages}
    for number in range(rounds):
        for name, package in packages.items():
            times[name].append(seconds_to_bar(package))
        write(times, number + 1)


def write(times: dict[str, list[tuple[float, float]]], rounds: int) -> None:
    """Writes what is known after so many rounds: each takes a minute or more where other programs run."""
    processor = {name: [seconds for seconds, _ in pairs] for name, pairs in times.items()}
    others = [name for name in times if name != "here"]
    report("start", {
        "load": os.getloadavg(), "unit": "seconds of the processor",
        "median": {name: statistics.median(values) for name, values in processor.items()},
        "median_by_the_clock": {name: statistics.median(clock for _, clock in pairs) for name, pairs in times.items()},
        "times_here": {name: ratio(processor, name, "here") for name in others},
        "quartiles": {name: quartiles(processor, name, "here") for name in others if rounds > 1},
        "processor_seconds": processor,
    })  # fmt: skip


if __name__ == "__main__":
    main()

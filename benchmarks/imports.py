"""`import tna_jax` against `import jax, flax, optax`, each in a fresh process. Goal: 50 ms more."""

import statistics
import subprocess
import sys

from benchmarks.timing import paired, report
from train import hosts


def fresh(code: str):
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    hosts.configure()
    seconds = paired({"tna_jax": fresh("import tna_jax"), "stack": fresh("import jax, flax, optax")}, rounds=15)
    extra = statistics.median(a - b for a, b in zip(seconds["tna_jax"], seconds["stack"], strict=True))
    report("imports", {"extra_milliseconds": extra * 1e3, "seconds": seconds})

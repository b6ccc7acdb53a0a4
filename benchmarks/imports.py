"""`import tna_jax` against `import jax, flax, optax`, each in a fresh process: processor seconds, which other work on the
machine disturbs less than wall time. Goal: 50 ms more."""

import resource
import statistics
import subprocess
import sys

from benchmarks.timing import report
from tna_jax import backend

IMPORTS = {"tna_jax": "import tna_jax", "stack": "import jax, flax, optax"}


def processor_seconds(code: str) -> float:
    """User and system seconds of a fresh interpreter that runs `code`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    backend.configure()
    rounds = [{name: processor_seconds(code) for name, code in IMPORTS.items()} for _ in range(16)][1:]
    extra = statistics.median(times["tna_jax"] - times["stack"] for times in rounds)
    report("imports", {"extra_milliseconds": extra * 1e3, "seconds": rounds})

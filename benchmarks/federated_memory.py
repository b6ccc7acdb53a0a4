"""Memory of a simulated round of 2,000 clients: the largest resident size of `tna federate`, in a process of its own.

An MLP 3x200 on 10,000 images of Fashion-MNIST, Dirichlet 0.5, all clients in the round, in the groups that the command chooses. Goal: 0.8 GB.
Needs Fashion-MNIST ($TNA_DATA_DIR). About two minutes.
"""

import resource
import sys
import tempfile

from benchmarks.timing import report
from tna_jax.programs.cli.main import main as tna

WORDS = ["federate", "--dataset", "fashion_mnist", "--train-examples", "10000", "--clients", "2000", "--least-examples", "1", "--rounds", "1",
         "--anchors", "pfn", "--participation", "1", "--alpha", "0.5", "--depth", "3", "--width", "200", "--epochs", "2", "--batch-size", "64",
         "--seeds", "1"]  # fmt: skip


def main() -> None:
    """Runs the command and writes its result."""
    with tempfile.TemporaryDirectory() as folder:
        code = tna([*WORDS, "--out", f"{folder}/run"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux
    report("federated_memory", {"command": " ".join(["tna", *WORDS]), "exit_code": code, "peak_gb": peak * 1024 / 1e9})


if __name__ == "__main__":
    sys.exit(main())

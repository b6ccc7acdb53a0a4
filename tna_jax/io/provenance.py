"""Where numbers come from: the commit, versions, device and seeds that a result file carries."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tna_jax.io.formats import FORMAT
from tna_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
NO_CODE = (":!train/results", ":!fusion/results", ":!benchmarks/results")
"""What git leaves out when it says whether the code was edited."""


def provenance(seeds: list[int], *, jax_used: bool = True) -> dict[str, Any]:
    """Returns where numbers come from: commit, versions, device, seeds, flags, JAX's switches and start time (UTC), in JSON's types.

    Args:
      seeds: that were used.
      jax_used: whether JAX computes; if not it is not loaded, and the device is the processor.
    """
    return {
        "format": FORMAT,
        "tna_jax": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        **(_of_jax() if jax_used else _of_numpy()),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "seeds": seeds,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _of_jax() -> dict[str, Any]:
    from tna_jax import backend
    from tna_jax.io import switches

    return {"device": backend.describe(), "switches": switches.current()}


def _of_numpy() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    return {"device": {"backend": "numpy", "kind": "cpu", "count": 1, "processes": 1, "cpu": name}}


def commit() -> str:
    """Returns the commit of the checkout this code runs from, with `+changes` if it was edited; `unknown` outside one.

    Committed results are not code: one that was just written does not count as a change.
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        # Looking takes no lock: the user's own git is not refused meanwhile, and a killed program leaves none behind.
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(["git", *words], cwd=here, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        if root != here.parents[1]:
            return "unknown"
        changes = git("-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE)
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""What a run leaves behind: its provenance, and JSON that any reader can parse."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train import hosts
from train.errors import UsageError
from train.manifest import FORMAT

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


UNFINISHED = ".unfinished"
READABLE, PRIVATE = 0o644, 0o600
"""Who may read a file: everyone on the machine, or its owner alone."""
NO_CODE = (":!experiments/results", ":!benchmarks/results")
"""What git leaves out when it says whether the code was edited."""


def provenance(seeds: list[int]) -> dict[str, Any]:
    """Where numbers come from: commit, versions, device, seeds, flags and start time (UTC)."""
    import tna_jax

    return {
        "format": FORMAT,
        "tna_jax": tna_jax.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": hosts.describe(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "seeds": seeds,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def commit() -> str:
    """The commit of the checkout this code runs from, with `+changes` if it was edited; `unknown` outside one.

    Committed results are no code: one that was just written does not count as a change.
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return "unknown"
        changes = git("-C", "..", "status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE)
        return git("rev-parse", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def plain(value: Any) -> Any:
    """`value` in JSON's own types: arrays as lists, dataclasses as objects, non-finite numbers as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any, indent: int | None = 1, mode: int = READABLE) -> None:
    """Writes `plain(value)` whole or not at all (see `write_whole`)."""
    write_whole(path, (json.dumps(plain(value), indent=indent, allow_nan=False) + "\n").encode(), mode)


def read_json(path: Path) -> Any:
    """The contents of a JSON file; raises UsageError where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: it is no JSON file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except RecursionError as error:
        raise UsageError(f"cannot read {path}: it is nested too deeply") from error


def write_whole(path: Path, data: bytes, mode: int = READABLE) -> None:
    """Writes a file whole or not at all: into a temporary file beside `path`, renamed at the end."""
    with whole(path, mode) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def whole(path: Path, mode: int = READABLE) -> Iterator[Path]:
    """A temporary file beside `path` to write to, which takes its place when the block ends without an error."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=UNFINISHED)
    except OSError as error:
        raise _of(path, error) from None
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, mode)
        try:
            os.replace(name, path)
        except OSError as error:
            raise _of(path, error) from None
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(handle)


def _of(path: Path, error: OSError) -> OSError:
    """The same error, of the file that was to be written instead of the temporary one."""
    return OSError(error.errno, error.strerror, str(path))

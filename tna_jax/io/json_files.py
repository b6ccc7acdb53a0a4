"""JSON that any reader can parse, and files that are written whole or not at all. Needs no JAX."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError

UNFINISHED = ".unfinished"
READABLE, PRIVATE = 0o644, 0o600
"""Who may read a file: everyone on the machine, or its owner alone."""


def to_json(value: Any) -> Any:
    """Converts `value` to JSON's own types: arrays to lists, dataclasses to objects, non-finite numbers to null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    if hasattr(value, "__array__"):  # of NumPy or JAX, neither of which is imported for it
        import numpy as np

        return to_json(np.asarray(value).tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, value: Any, indent: int | None = 1, mode: int = READABLE) -> None:
    """Writes `to_json(value)` whole or not at all (see `write_atomic`)."""
    write_atomic(path, (json.dumps(to_json(value), indent=indent, allow_nan=False) + "\n").encode(), mode)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names more than once: {', '.join(name for name in held if names.count(name) > 1)}")
    return held


def read_json(path: Path, once: bool = False) -> Any:
    """Reads a JSON file.

    Args:
      once: refuse an object that has a name twice, of which JSON's readers silently take the last.

    Raises:
      UsageError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once if once else None)
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read {path}: it is not a JSON file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except RecursionError as error:
        raise UsageError(f"cannot read {path}: it is nested too deeply") from error


def write_atomic(path: Path, data: bytes, mode: int = READABLE) -> None:
    """Writes a file whole or not at all: into a temporary file beside `path`, renamed at the end."""
    with atomic_file(path, mode) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def atomic_file(path: Path, mode: int = READABLE) -> Iterator[Path]:
    """Opens a temporary file beside `path` to write to, which takes its place when the block ends without an error.

    A device or a pipe (`/dev/null`, `/dev/stdout`) is written to and not replaced.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "output"
            with open(Path(folder) / "output", "rb") as written, open(path, "wb") as stream:
                shutil.copyfileobj(written, stream)
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=UNFINISHED)
    except OSError as error:
        raise _renamed(path, error) from None
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, mode)
        try:
            os.replace(name, path)
        except OSError as error:
            raise _renamed(path, error) from None
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the news
            os.unlink(name)
        if isinstance(error, OSError) and error.filename in (None, name) and error.errno is not None:
            raise _renamed(path, error) from None
        raise
    finally:
        os.close(handle)


def _renamed(path: Path, error: OSError) -> OSError:
    """Returns the same error, of the file that was to be written instead of the temporary one."""
    return OSError(error.errno, error.strerror, str(path))

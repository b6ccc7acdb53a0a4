"""The one file that touches orbax: arrays by key into numbered steps of a folder, and back. No pickle.

It uses the API of orbax-checkpoint before 1.0 (`orbax.checkpoint.CheckpointManager`), which is why the dependency is capped there.
"""

import contextlib
import gc
import inspect
import os
import sys
import time
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import UNREADABLE, Damaged

STATE, MANIFEST = "state", "manifest"
"""Names of the two parts of a step: the arrays, and the JSON that describes them."""
INDEX = "manifest.ocdbt"
"""The file of a saved state without which none of its arrays can be read."""
WILDCARDS = "[]*?"
"""orbax looks for the parts of a save with a pattern that holds the folder's path: these would not stand for themselves."""


def require_plain(folder: Path, option: str = "") -> None:
    """Raises UsageError for a folder in whose path orbax would save what cannot be read back; `option` says who named it."""
    place = str(folder.resolve())
    if not _is_text(place):
        raise UsageError(
            f"{option}{place.encode(errors='backslashreplace').decode()}: checkpoints cannot be kept in a folder whose path is no UTF-8; "
            "name another folder, or rename this one"
        )
    wildcards = [character for character in WILDCARDS if character in place]
    if wildcards:
        raise UsageError(
            f"{option}{folder.resolve()}: checkpoints cannot be kept in a folder whose path holds {' or '.join(wildcards)} (orbax "
            "takes it for a pattern); name another folder, or rename this one"
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, which Python keeps as they are
        return False
    return True


class Store:
    """Numbered steps in a folder, of which the newest stay. Of several processes all must make the same calls."""

    def __init__(self, folder: Path, kept: int):
        """Opens `folder`, which is created if it is missing; the last `kept` steps stay."""
        import orbax.checkpoint as ocp  # a second: who saves nothing yet need not wait for it

        self.ocp = ocp
        options = ocp.CheckpointManagerOptions(max_to_keep=kept, create=True, cleanup_tmp_directories=True)
        self.manager = ocp.CheckpointManager(folder, options=options)

    def save(self, step: int, arrays: Mapping[str, np.ndarray], description: Mapping[str, Any]) -> bool:
        """Writes a step and waits until it is written; returns whether orbax accepted it."""
        ocp = self.ocp
        arguments = {STATE: ocp.args.StandardSave(dict(arrays)), MANIFEST: ocp.args.JsonSave(dict(description))}
        accepted = self.manager.save(step, args=ocp.args.Composite(**arguments))
        self.wait()
        return bool(accepted)

    def wait(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Closes the folder."""
        self.manager.close()


def read(folder: Path, keys: set[str]) -> dict[str, np.ndarray]:
    """Reads the arrays of a saved state with these keys.

    Raises:
      Damaged: they cannot be read.
      UsageError: the system does not let them be read.
    """
    import orbax.checkpoint as ocp

    as_numpy = {key: ocp.RestoreArgs(restore_type=np.ndarray) for key in keys}
    arguments: Any = ocp.args.PyTreeRestore(dict.fromkeys(keys, 0), restore_args=as_numpy, partial_restore=True)
    try:
        with (
            warnings.catch_warnings(),
            stragglers_hushed(),
            ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader,
        ):
            warnings.simplefilter("ignore")  # of sharding, which NumPy arrays have none
            arrays: dict[str, np.ndarray] = reader.restore(folder, args=arguments)
            return arrays
    except Exception as error:
        if refusal := next((os.strerror(number) for number in UNREADABLE if os.strerror(number) in str(error)), ""):
            raise UsageError(f"cannot read {folder}: {refusal}") from error
        first = (str(error).strip().splitlines() or [""])[0]
        raise Damaged(f"it cannot be read ({type(error).__name__}: {first[:160]})") from error


@contextlib.contextmanager
def stragglers_hushed() -> Iterator[None]:
    """Keeps what reads and writes beside a failed one would print off the screen: the failed one is reported."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        quiet_down()
        raise
    finally:
        sys.unraisablehook = before


def quiet_down() -> None:
    """Waits for what outlives a failed read or write, and closes the coroutines of orbax that it kept from starting.

    Python would warn, whenever it collects them, that nobody awaited those.
    """
    time.sleep(0.3)
    for thing in gc.get_objects():
        if not isinstance(thing, types.CoroutineType) or "orbax" not in thing.cr_code.co_filename:
            continue
        if inspect.getcoroutinestate(thing) == inspect.CORO_CREATED:
            thing.close()

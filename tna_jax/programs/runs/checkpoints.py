"""Saves the state of an ensemble in the background (orbax), with checksums. No pickle. `tna_jax.io.restore` reads it."""

import concurrent.futures
import contextlib
import errno
import functools
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from tna_jax.io import manifest
from tna_jax.io.errors import UsageError
from tna_jax.io.orbax_store import INDEX, STATE, Store, quiet_down, require_plain, stragglers_hushed
from tna_jax.io.restore import listed
from tna_jax.programs.cli.messages import shell_words

OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
)
"""What the system may say of a save, wherever in the words of others it stands."""
PATIENCE = 2.0
"""Seconds that a save being written gets when the run is stopped at once."""


class Checkpoints:
    """The checkpoints of a run that trains: the state of all models, by the number of finished steps.

    Masks, data orders and hyper-parameters are not saved: the run's configuration makes them again. Of several processes
    all must make the same calls, on one shared folder. Use it as a context manager: leaving it waits for the save being
    written, but no longer than `PATIENCE` where a second Ctrl-C ended the run: the save before is intact. Durations are measured with the monotonic clock: setting the system's clock changes nothing.
    """

    def __init__(self, folder: Path, minutes: float, epochs: int | None = None, kept: int = 2):
        """Opens `folder` for saving every `minutes`, also every `epochs` if given, of which the last `kept` stay."""
        self.folder = folder.absolute()
        require_plain(self.folder)
        self.kept = kept
        with _as_usage_error(self.folder, "open"):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if jax.process_count() > 1:
                self.store  # noqa: B018, all processes open it at the same time
        self.every, self.epochs = minutes * 60, epochs
        self.last = time.monotonic()
        self.hushed = contextlib.ExitStack()
        self.worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self.writing: concurrent.futures.Future[None] | None = None
        self.busy = threading.Lock()  # held by the worker while it saves

    @functools.cached_property
    def store(self) -> Store:
        """The folder as orbax has it: opened for the first save, so that training does not wait for the import of orbax."""
        return Store(self.folder, self.kept)

    def _close_store(self) -> None:
        if "store" in vars(self):
            self.store.close()

    def __enter__(self) -> "Checkpoints":
        self.hushed.enter_context(stragglers_hushed())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.hushed:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        waits = True
        try:
            if error is None:
                self.wait()
                with _as_usage_error(self.folder, "save in"):
                    self._close_store()
            elif isinstance(error, KeyboardInterrupt):
                raise error
            elif jax.process_count() == 1:  # what stopped the run is the news, not what it did to a save
                with contextlib.suppress(Exception):
                    self.wait()
                with contextlib.suppress(Exception):
                    self._close_store()
                if isinstance(error, UsageError):
                    quiet_down()
        except (
            KeyboardInterrupt
        ):  # a second Ctrl-C, perhaps in the middle of `save`: whatever the worker does, nobody waits for it
            waits = False
            self.worker.shutdown(wait=False, cancel_futures=True)
            if self.busy.acquire(timeout=PATIENCE):
                with contextlib.suppress(Exception):
                    self._close_store()
            raise
        finally:
            self.worker.shutdown(wait=waits)

    def due(self, epoch: int) -> bool:
        """Returns whether a save is due after epoch `epoch` (from 1); not while the last one is still being written.

        Raises UsageError if the last one failed.
        """
        if self.writing is not None and self.writing.done():
            self.wait()
        if self.epochs is not None and epoch % self.epochs == 0:
            return True
        return self.writing is None and time.monotonic() - self.last >= self.every

    def wait(self) -> None:
        """Waits for the save being written; the arrays given to `save` may be written to afterwards.

        Raises:
          UsageError: it failed; what was saved before is intact.
        """
        if self.writing is None:
            return
        with _as_usage_error(self.folder, "save in"):
            try:
                self.writing.result()
                self.store.wait()
            finally:
                self.writing = None

    def save(self, step: int, tree: dict[str, Any]) -> None:
        """Saves NumPy arrays as the state after `step`, in the background: they must not change until `wait` returns.

        Of several processes each does it here and now: the steps of orbax must come in one order on all of them.

        Raises:
          UsageError: this save or the one before it failed.
        """
        self.wait()
        if step in listed(self.folder):
            return
        arrays = manifest.named(tree)
        if jax.process_count() == 1:
            self.writing = self.worker.submit(self._write_alone, step, arrays)
        else:
            with _as_usage_error(self.folder, "save in"):
                self._write(step, arrays)
        self.last = time.monotonic()

    def _write_alone(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        with self.busy:
            self._write(step, arrays)

    def _write(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        # Names that orbax cannot misread. It does not save arrays without entries: the manifest says all there is of them.
        state = {f"{i:04d}": array for i, array in enumerate(arrays.values()) if np.size(array)}
        if not self.store.save(step, state, manifest.describe(arrays)):
            raise RuntimeError(f"orbax did not accept step {step}; it holds {sorted(listed(self.folder))}")
        if jax.process_index() == 0 and not (self.folder / str(step) / STATE / INDEX).is_file():
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
            raise RuntimeError(f"orbax wrote no {INDEX} for step {step}, without which it cannot be read")


@contextlib.contextmanager
def _as_usage_error(folder: Path, doing: str) -> Iterator[None]:
    """Raises whatever goes wrong with a save (disk full, folder read-only) as one line that says what is left."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        steps = listed(folder)
        left = f"checkpoint {steps[0]} is intact" if steps else "no checkpoint was saved before"
        raise UsageError(
            f"cannot {doing} {folder}: {_reason(error)}; {left}; mend that, then: tna resume {shell_words(str(folder.parent))}"
        ) from error


def _reason(error: BaseException) -> str:
    for known in OF_THE_DISK:
        if os.strerror(known) in str(error):
            return os.strerror(known)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__

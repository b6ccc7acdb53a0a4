"""One program at a time in a run folder: a lock that the system releases when its process ends, however it ends."""

import os
import platform
import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.messages import print_warning

LOCK, OWNER = ".lock", ".lock.owner"
"""The file that is locked, and the one that names the process which holds it."""
PATIENCE = 0.5
"""Seconds to try for: `held` takes the lock for a moment too."""


class Lock:
    """Holds a run folder from creation until `release`, or until the process is gone."""

    def __init__(self, folder: Path):
        """Locks a run folder; warns where its file system has no locks.

        Raises:
          UsageError: another process holds it; the message names that process.
          OSError: the folder cannot be written to.
        """
        self.owner = folder / OWNER
        self.lock = FileLock(folder / LOCK, timeout=PATIENCE, thread_local=False)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the library's other kind of lock, where there is no flock
                self.lock.acquire(poll_interval=PATIENCE / 5)
        except Timeout as error:
            holder = _owner(folder) or "another process"
            raise UsageError(f"{folder} is in use by {holder}; wait for it, or choose another --out") from error
        except PermissionError:
            raise
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            print_warning(f"{folder} cannot be locked ({reason}): start nothing else in it")
        try:
            self.owner.write_text(f"process {os.getpid()} on {platform.node()}\n")
        except OSError:
            self.lock.release()
            raise

    def release(self) -> None:
        """Unlocks the folder."""
        self.owner.unlink(missing_ok=True)
        self.lock.release()


def held(folder: Path) -> bool:
    """Returns whether a program is at work in the run folder; writes nothing to it."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder of someone else's: what its owner says has to do
        return _is_alive(_owner(folder))


def _owner(folder: Path) -> str:
    """Reads who holds the lock: `process 17 on HOST`; empty where nobody says so."""
    try:
        return (folder / OWNER).read_text()[:200].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _is_alive(owner: str) -> bool:
    """Returns whether a process of this machine is running; of those of other machines that is not known: True."""
    match owner.split():
        case ["process", number, "on", host] if number.isdecimal() and host == platform.node():
            try:
                os.kill(int(number), 0)
            except ProcessLookupError:
                return False
            except OSError:
                return True
            return True
    return bool(owner)

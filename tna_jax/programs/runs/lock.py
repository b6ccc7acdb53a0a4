"""One program at a time in a run folder: a lock that the system releases when its process ends, however it ends."""

import errno
import fcntl
import os
import platform
import time
from pathlib import Path
from typing import IO

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.progress import console

LOCK = ".lock"


class Lock:
    """Held from creation until `release`, or until the process is gone."""

    def __init__(self, folder: Path):
        """Takes the lock of a run folder.

        Raises:
          UsageError: another process has it; it is named.
          OSError: the folder cannot be written.
        """
        self.file = open(folder / LOCK, "a+")  # noqa: SIM115 (open as long as the lock is held)
        try:
            _patiently(self.file)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                self.file.seek(0)
                owner = self.file.read(200).strip() or "another process"
                self.file.close()
                raise UsageError(f"{folder} is in use by {owner}; wait for it, or choose another --out") from error
            console.print(f"warning: {folder} cannot be locked ({error.strerror}): start nothing else in it")
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {platform.node()}\n")
        self.file.flush()

    def release(self) -> None:
        """Lets others in."""
        self.file.close()


def _patiently(file: IO[str]) -> None:
    """Takes the lock; tries for half a second, as `held` takes it for a moment too."""
    for attempt in range(6):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if attempt == 5:
                raise
            time.sleep(0.1)


def held(folder: Path) -> bool:
    """Whether a program is at work in the run folder."""
    try:
        with open(folder / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

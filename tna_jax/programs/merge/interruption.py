"""What a merge that is stopped says: what its output holds."""

import contextlib
import signal
from pathlib import Path
from typing import Any

from tna_jax.programs.cli.interrupts import STOPPING
from tna_jax.programs.cli.progress import Interrupted, console


class terminated_like_interrupted:
    """While it is open, SIGTERM and a terminal that is closed end the program as Ctrl-C does: it is said what --out holds, and nothing
    is half written."""

    def __init__(self, out: Path) -> None:
        self.out, self.held = out, _identity(out)

    def __enter__(self) -> None:
        def stop(number: int, frame: Any) -> None:
            raise KeyboardInterrupt

        self.before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: a test, a notebook's worker
            for number in STOPPING:
                if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                    self.before[number] = signal.signal(number, stop)

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        for number, before in self.before.items():
            signal.signal(number, before)
        if kind is KeyboardInterrupt:
            new, old = _identity(self.out) not in (self.held, None), self.held is not None
            held = "the merge was finished" if new else "what it held before is there" if old else "nothing was written"
            console.print(f"stopped; {self.out}: {held}", highlight=False)
            raise Interrupted from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

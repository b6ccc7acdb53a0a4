"""Ctrl-C of the command, SIGTERM, and a terminal that is closed: before a program begins, while it runs, and after it is done.

No stop waits for ever, none prints a traceback, and none is without a word.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

GRACE = 5.0
"""Seconds that a stopped program has to end by itself; then its process is ended."""
INTERRUPTED = 130
"""Exit code of a program that was stopped."""
HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""What a terminal sends that is closed, or whose connection broke; Windows has none."""
STOPPING: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP is not None else []))
"""What stops a program."""


@contextlib.contextmanager
def begin() -> Iterator[None]:
    """The process of a command that has just started: Ctrl-C and its like end it at once, for nothing was begun."""
    for number in STOPPING:
        if signal.getsignal(number) in (
            signal.default_int_handler,
            signal.SIG_DFL,
        ):  # else whoever started it decides, as `nohup` does
            signal.signal(number, stop_at_once)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else hook(lost)
    try:
        yield
    finally:
        sys.unraisablehook = hook


def stop_at_once(*_: Any) -> NoReturn:
    """Ends the process that is stopped before a program began: an exception could be lost, or printed, in whatever is imported."""
    for number in STOPPING:  # one of them that follows (a closed terminal's comes twice) does not say it again
        signal.signal(number, signal.SIG_IGN)
    say(f"\n{' '.join(['tna', *sys.argv[1:2]])}: stopped at once\n")
    end(INTERRUPTED)


def hand_over() -> None:
    """From here on Ctrl-C is the program's, and its like are too: they raise KeyboardInterrupt."""
    mine = [number for number in STOPPING if signal.getsignal(number) is stop_at_once]
    for number in mine:
        signal.signal(number, interrupt)
    if mine and os.name != "nt":
        _watch()


def interrupt(number: int, *_: Any) -> NoReturn:
    """Raises KeyboardInterrupt, and ends the process if it is still there `GRACE` seconds later: where an exception was lost, or a thread
    that nobody can stop (a save of orbax's) keeps the interpreter."""
    if number == HANG_UP:
        signal.signal(number, signal.SIG_IGN)  # the system says it, and the shell says it: that is no second Ctrl-C
    threading.Thread(target=_end_later, daemon=True).start()
    raise KeyboardInterrupt


def _watch() -> None:
    """Sees to it that a signal ends the process also where its main thread computes or compiles for minutes and looks at none meanwhile."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        while numbers := os.read(reading, 1):
            if signal.getsignal(numbers[0]) is interrupt:  # else a training finishes its epoch first
                _end_later()

    threading.Thread(target=wait, daemon=True).start()


_ending = threading.Lock()
"""Held by the thread that ends the process."""


def _end_later() -> None:
    if not _ending.acquire(blocking=False):
        return
    time.sleep(GRACE)
    say(f"{' '.join(['tna', *sys.argv[1:2]])}: stopped at once; what was saved before is intact\n")
    end(INTERRUPTED)


def say(text: str) -> None:
    """Writes to stderr whatever else is being written there: a signal may come in the middle of a line."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))


def end(code: int) -> NoReturn:
    """Ends the process now: what is printed is printed, the cursor is visible, and no thread is waited for."""
    printing = threading.Thread(target=_print_all, daemon=True)  # nobody may be reading any more
    printing.start()
    printing.join(1)
    os._exit(code)


def _print_all() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            if stream.isatty():
                stream.write("\x1b[?25h")
            stream.flush()


def leave(code: int) -> int:
    """Ends the process of a program that was stopped; returns the exit code of any other, whose last moments no signal disturbs."""
    if code == INTERRUPTED:
        end(code)
    for number in STOPPING:
        if signal.getsignal(number) in (interrupt, stop_at_once):
            signal.signal(number, lambda *_: end(code))
    return code

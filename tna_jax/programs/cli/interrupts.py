"""Ctrl-C of the command: before a program begins, while it runs, and after it is done. No stop waits for ever, none prints a traceback."""

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


@contextlib.contextmanager
def begin() -> Iterator[None]:
    """The process of a command that has just started: Ctrl-C ends it at once, for nothing was begun."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started it decides
        signal.signal(signal.SIGINT, stop_at_once)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else hook(lost)
    try:
        yield
    finally:
        sys.unraisablehook = hook


def stop_at_once(*_: Any) -> NoReturn:
    """Ends the process when Ctrl-C is pressed before a program began: an exception could be lost, or printed, in whatever is imported."""
    say(f"\n{' '.join(['tna', *sys.argv[1:2]])}: stopped at once\n")
    end(INTERRUPTED)


def hand_over() -> None:
    """From here on Ctrl-C is the program's: it raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is stop_at_once:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(*_: Any) -> NoReturn:
    """Raises KeyboardInterrupt, and ends the process if it is still there `GRACE` seconds later: where an exception was lost, or a thread
    that nobody can stop (a save of orbax's) keeps the interpreter."""
    threading.Thread(target=_end_later, daemon=True).start()
    raise KeyboardInterrupt


def _end_later() -> None:
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
    """Ends the process of a program that was stopped; returns the exit code of any other, whose last moments Ctrl-C does not disturb."""
    if code == INTERRUPTED:
        end(code)
    if signal.getsignal(signal.SIGINT) in (interrupt, stop_at_once):
        signal.signal(signal.SIGINT, lambda *_: end(code))
    return code

"""Progress on the screen, and a way to stop between two epochs without losing anything."""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tna_jax.programs.cli.interrupts import HANG_UP, STOPPING, say

AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False}
"""What users name (paths, tensors, options) may hold `[x]` and `:x:`, which rich would take for its own."""
console = Console(stderr=True, **AS_IT_IS)


def wide_console() -> Console:
    """For tables on stdout: as wide as a table needs where neither a terminal nor COLUMNS says how wide it is."""
    given = Console()
    width = None if given.is_terminal or os.environ.get("COLUMNS", "").isdecimal() else max(given.width, 136)
    return Console(width=width, **AS_IT_IS)


def plural(count: int, noun: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(bytes: float) -> str:
    """A number of bytes in the unit that suits it: `84 bytes`, `1.5 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= scale:
            return f"{bytes / scale:.3g} {unit}"
    return f"{bytes:.0f} bytes"


def print_user_error(message: str) -> int:
    """Prints one line on stderr, once for all processes; returns the exit code for input that is the user's to mend."""
    if not console.quiet:
        print(message, file=sys.stderr)
    return 2


class Interrupted(Exception):
    """The user pressed Ctrl-C (or the system sent SIGTERM) and the program reached a safe point."""


class Stop:
    """Whether a stop was asked for, by a signal or since the time of `time_limit` is over. A second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.signalled = False

    @property
    def asked(self) -> bool:
        """Whether one was."""
        return self.signalled or time_is_over()

    @asked.setter
    def asked(self, value: bool) -> None:
        self.signalled = value

    def check(self) -> None:
        """Raises Interrupted if a stop was asked for: call it where everything is saved."""
        if self.asked:
            raise Interrupted


_deadlines: list[float] = []
"""Of the blocks of `time_limit` that run, as `time.monotonic` counts."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Asks every program that runs in the block to stop at its next safe point once the time is over: slices of a long computation."""
    _deadlines.append(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadlines.pop()


def time_is_over() -> bool:
    """Whether the time of a block of `time_limit` around this call is over."""
    return time.monotonic() >= min(_deadlines, default=math.inf)


@contextlib.contextmanager
def stoppable(after: str = "epoch") -> Iterator[Stop]:
    """Turns the signals in `STOPPING` into `Stop.asked` while the block runs; `after` says what is finished first.

    A terminal that is closed may say so more than once: that is no second Ctrl-C. Where it is ignored (`nohup`) it stays so.
    """
    stop = Stop()

    def handler(number: int, frame: FrameType | None) -> None:
        if stop.signalled and number == HANG_UP:
            return
        if stop.signalled:
            if callable(earlier := before[signal.SIGINT]):
                earlier(number, frame)  # it raises, and of a command sees to it that the process ends
            raise KeyboardInterrupt
        stop.signalled = True
        said = f"stopping after this {after} (Ctrl-C again: at once)"
        try:
            console.print(said)
        except RuntimeError:  # the signal came in the middle of printing
            say(f"\n{said}\n")

    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: old for number, old in before.items() if number != HANG_UP or old is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield stop
    finally:
        for number, old in before.items():
            signal.signal(number, old)


WORDS = 106
"""Columns that the words beside a bar of training take."""


def room_for_bar(words: int = WORDS) -> list[ProgressColumn]:
    """The bar itself, as wide as it may be beside `words` columns; none where it would cut numbers off."""
    free = min(console.width - words, 30)
    return [BarColumn(bar_width=free)] if free >= 5 else []


def _columns() -> list[ProgressColumn]:
    """Of the bar of a training. On a narrow screen the count of epochs and the time left stay, the bar goes first."""
    numbers = "{task.fields[unit]}  loss {task.fields[loss]}  {task.fields[measure]} {task.fields[accuracy]}"
    left: list[ProgressColumn] = [TextColumn("left"), TimeRemainingColumn()]
    if console.width < WORDS:
        return [TextColumn("{task.fields[members]}"), MofNCompleteColumn(), TextColumn(numbers), *left]
    return [
        TextColumn("training {task.fields[members]}"), *room_for_bar(), MofNCompleteColumn(),
        TextColumn(numbers + "  {task.fields[speed]} examples/s"), TimeElapsedColumn(), *left,
    ]  # fmt: skip


class TrainingBar:
    """A bar over epochs: loss, accuracy, examples per second, time left."""

    def __init__(self, members: int, examples: int, epochs: int, done: int = 0, waves: int = 1):
        self.examples = examples
        self.bar = Progress(*_columns(), console=console)
        unit = "epochs" if waves == 1 else f"epochs of {waves} waves"
        empty: dict[str, Any] = {"loss": "-", "measure": "accuracy", "accuracy": "-", "speed": "-", "unit": unit}
        words = f"{members} model{'s' * (members > 1)}"
        self.task = self.bar.add_task("", total=epochs * waves, completed=done, members=words, **empty)

    def __enter__(self) -> "TrainingBar":
        self.bar.start()
        self.last = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def epoch(self, means: dict[str, float], models: int) -> float:
        """One epoch of `models` models is done, with these metrics, the loss first; returns the examples per second it ran at."""
        now = time.perf_counter()
        speed = models * self.examples / (now - self.last)
        self.last = now
        numbers: dict[str, Any] = self._numbers(means)
        self.part(0)
        self.bar.update(self.task, advance=1, speed=f"{speed:,.0f}", **numbers)
        return speed

    def part(self, share: float) -> None:
        """A share of the current epoch is done."""
        done = next(int(task.completed) for task in self.bar.tasks if task.id == self.task)
        self.bar.update(self.task, completed=done + share)

    @staticmethod
    def _numbers(means: dict[str, float]) -> dict[str, str]:
        (_, loss), *others = means.items()
        name, other = next(iter(others), ("loss", loss))
        return {"loss": f"{loss:.4f}", "measure": name.replace("_", " "), "accuracy": f"{other:.4f}"}


class PhaseBar:
    """A bar over the parts of a longer step, one after the other: what is being done, how much of it, for how long.

    It vanishes at the end: lines printed meanwhile stay.
    """

    def __init__(self) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip

    def __enter__(self) -> "PhaseBar":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def phase(self, words: str, total: int) -> None:
        """The next part begins, of `total` units."""
        for task in self.bar.task_ids:
            self.bar.remove_task(task)
        self.bar.add_task(words, total=total)

    def advance(self, units: int = 1) -> None:
        """Units of the current part are done."""
        for task in self.bar.task_ids:
            self.bar.advance(task, units)

"""Scores a model file with a command of the user."""

import shlex
import subprocess
from pathlib import Path


class NoScore(Exception):
    """A command gave no score; the message says why."""


def evaluate(command: str, path: Path, minutes: float | None = None) -> float:
    """Returns the number in the last line that the command prints for a model.

    Raises:
      NoScore: the command cannot be run, fails, takes too long, or prints no number there.
    """
    try:
        done = subprocess.run(
            [*shlex.split(command), str(path)], capture_output=True, text=True, timeout=minutes and minutes * 60
        )
    except (OSError, ValueError) as error:
        raise NoScore(f"--evaluate {command}: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise NoScore(f"--evaluate {command} {path} took longer than {minutes:g} minutes") from error
    if done.returncode:
        message = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise NoScore(f"--evaluate {command} {path} ended with code {done.returncode}: {message}")
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    try:
        return float(last)
    except ValueError:
        raise NoScore(f"--evaluate {command} {path} must print a number in its last line, printed {last!r}") from None

"""Scores a model file with a command of the user."""

import shlex
import subprocess
from pathlib import Path

from tna_jax.io.errors import UsageError


def evaluate(command: str, path: Path) -> float:
    """Returns the number in the last line that the command prints for a model.

    Raises:
      UsageError: the command cannot be run, fails, or prints no number there.
    """
    try:
        done = subprocess.run([*shlex.split(command), str(path)], capture_output=True, text=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"--evaluate {command}: {error}") from error
    if done.returncode:
        message = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UsageError(f"--evaluate {command} {path} ended with code {done.returncode}: {message}")
    last = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    try:
        return float(last)
    except ValueError:
        raise UsageError(
            f"--evaluate {command} {path} must print a number in its last line, printed {last!r}"
        ) from None

"""What a program says beside its results: warnings, what it wrote, which command comes next; and `--quiet`, which leaves out the talk."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

from tna_jax.programs.cli.progress import console

QUIET = ("-q", "--quiet")
_quiet: list[bool] = []
"""One entry for each program that runs, as `tna resume` runs another."""


def is_quiet() -> bool:
    """Returns whether results, warnings and errors alone are printed."""
    return any(_quiet)


@contextlib.contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """Leaves out progress, remarks and hints while the block runs, if `wanted`."""
    _quiet.append(wanted)
    with open(os.devnull, "w") as nowhere:
        try:
            if wanted:
                console.file = nowhere
            yield
        finally:
            _quiet.pop()
            if wanted and not is_quiet():
                console.file = None  # type: ignore[assignment]  # sys.stderr, whatever it is by then


def print_warning(sentence: str) -> None:
    """Prints a warning on stderr, once for all processes; `--quiet` does not silence it."""
    if not is_quiet():
        console.print(f"warning: {sentence}", highlight=False)
    elif not console.quiet:
        print(f"warning: {sentence}", file=sys.stderr)


def wrote(what: str, *command: str) -> None:
    """Prints what a program wrote, and the command that shows or uses it next.

    Args:
      what: the files.
      command: the words of the next command, not quoted; none where nothing follows.
    """
    following = f"; next: {shell_words(*command)}" if command and not is_quiet() else ""
    print(f"wrote {what}{following}")


def shell_words(*words: str) -> str:
    """Returns words as this system's shell takes them: quoted where they have spaces or what a shell would read."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)

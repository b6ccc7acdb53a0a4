"""`tna completion SHELL`: prints a script with which the shell completes `tna`, its programs and their options.

The script holds all it needs, so that completing starts neither JAX nor this package.
"""

import contextlib
import functools
import io
import operator
from typing import Annotated, Any

import tyro

from tna_jax.programs.cli.catalog import PROGRAMS, options_of
from tna_jax.programs.cli.parsing import command_line
from tna_jax.programs.completion.options import CompletionOptions
from tna_jax.programs.completion.places import with_places


def run(settings: CompletionOptions) -> None:
    """Prints the script."""
    print(script(settings.shell))


def script(shell: str) -> str:
    """Returns the completion script for bash, zsh or fish."""
    choices: list[Any] = [
        Annotated[command_line(options_of(name), choices=True), tyro.conf.subcommand(name, description=text)]
        for name, (_, text) in PROGRAMS.items()
    ]
    programs = functools.reduce(operator.or_, choices)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(programs, prog="tna", args=["--tyro-write-completion", shell, "-"])
    return with_places(printed.getvalue(), shell)

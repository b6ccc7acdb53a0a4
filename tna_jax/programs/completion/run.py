"""`tna completion SHELL`: prints a script with which the shell completes `tna`, its programs and their options.

The script holds all it needs, so that completing starts neither JAX nor this package.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import operator
import typing
from typing import Annotated, Any, Literal

import tyro

from tna_jax.programs.cli.launch import launch
from tna_jax.programs.cli.main import PROGRAMS


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """Options of `tna completion`."""

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """bash: write it to ~/.local/share/bash-completion/completions/tna; zsh: to _tna in a folder of $fpath; fish: to
    ~/.config/fish/completions/tna.fish."""


@dataclasses.dataclass(frozen=True)
class Words:
    """What a program takes that reads its command line itself."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """A run folder, then options."""


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("completion", CompletionOptions, run, arguments, __doc__)


def run(settings: CompletionOptions) -> None:
    """Prints the script."""
    print(script(settings.shell))


def options_of(module: str) -> type:
    """The options of a program, those that its `run` takes; `Words` for a program without one."""
    run = getattr(importlib.import_module(module), "run", None)
    hints = list(typing.get_type_hints(run).values()) if run else []
    first = hints[0] if hints else None
    return first if isinstance(first, type) and dataclasses.is_dataclass(first) else Words


def script(shell: str) -> str:
    """The completion script for bash, zsh or fish."""
    choices: list[Any] = [
        Annotated[options_of(module), tyro.conf.subcommand(name, description=text)]
        for name, (module, text) in PROGRAMS.items()
    ]
    programs = functools.reduce(operator.or_, choices)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(programs, prog="tna", args=["--tyro-write-completion", shell, "-"])
    return printed.getvalue()

"""Command-line options from typed dataclasses (tyro), wrong ones answered in one line; configurations from JSON files."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro

from tna_jax import connectivity
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json, to_json
from tna_jax.io.manifest import check_format

Config = TypeVar("Config")


def parse(cls: type[Config], arguments: list[str], program: str, description: str) -> Config:
    """The options of a program.

    `--config FILE` takes defaults from a JSON object of option names (a run's config.json, say); other options go before it.

    Args:
      cls: a dataclass; its fields are the options, their docstrings the help.

    Raises:
      UsageError: an unknown option (the nearest one is named) or a value of the wrong type.
      SystemExit: code 0, after `--help`.
    """
    arguments = _with_config(cls, list(arguments))
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=arguments, prog=f"tna {program}", description=description)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(errors.getvalue())) from None


def grid(alphas: tuple[float, ...]) -> np.ndarray:
    """(A,) the points of a path from the option `--alphas`; raises UsageError for a grid without 0, 1/2 and 1."""
    try:
        return connectivity.grid(int(alphas[0])) if len(alphas) == 1 else connectivity.check_alphas(alphas)
    except ValueError as error:
        raise UsageError(f"--alphas: {error}") from error


def _one_line(text: str) -> str:
    """tyro's box of an error as one line: what is wrong, and which options were meant."""
    lines = [
        re.sub(r"\s+", " ", line.strip(" │|╭╮╰╯─-" if set(line.strip()) <= set("─-╭╮╰╯ ") else " │|"))
        for line in text.splitlines()
    ]
    lines = [line for line in lines if line][1:]  # the first is the box's title
    wrong = [line for line in lines if not line.startswith("For full helptext")]
    cut = next(
        (i for i, line in enumerate(wrong) if line.startswith(("Perhaps you meant", "Argument helptext"))), len(wrong)
    )
    meant = [line.split(" ")[0] for line in wrong[cut + 1 :] if line.startswith("--")]
    hint = f"; did you mean {' or '.join(meant[:2])}?" if meant and wrong[cut].startswith("Perhaps") else ""
    return re.sub(r"\s*─{4,}.*", "", " ".join(wrong[:cut])) + hint


def _with_config(cls: type, arguments: list[str]) -> list[str]:
    """Replaces `--config FILE` by the options the file holds, put before all others."""
    for i, word in enumerate(arguments):
        if word == "--config" and i + 1 < len(arguments):
            return _file_options(cls, arguments[i + 1]) + arguments[:i] + arguments[i + 2 :]
        if word.startswith("--config="):
            return _file_options(cls, word.partition("=")[2]) + arguments[:i] + arguments[i + 1 :]
    return arguments


def _file_options(cls: type, name: str) -> list[str]:
    try:
        values = read_json(Path(name))
    except UsageError as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {name}: expected a JSON object of option names")
    check_format(values, f"--config {name}")
    values = {key: value for key, value in values.items() if key not in ABOUT}
    known = {field.name for field in dataclasses.fields(cls)}
    strange = sorted(set(values) - known)
    if strange:
        raise UsageError(f"--config {name}: unknown options {', '.join(strange)}; known: {', '.join(sorted(known))}")
    return to_words(values)


ABOUT = ("format", "program", "started_with")
"""What a run's config.json holds beside options."""


def from_values(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """The options `values`, as a file holds them; raises UsageError, which names `where`, for a wrong type or name."""
    try:
        return parse(cls, to_words(values), "", "")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def defaults(module: Any, program: str) -> dict[str, Any]:
    """The options of a program that have a default, as a file holds them: those of its `NameOptions`; {} if it has none."""
    cls = getattr(module, f"{program.capitalize()}Options", None)
    if not dataclasses.is_dataclass(cls):
        return {}
    return {f.name: to_json(f.default) for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def to_words(values: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    return [word for key, value in values.items() for word in _words(key.replace("_", "-"), value)]


def _words(option: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value)] if isinstance(value, list) else [f"--{option}", str(value)]

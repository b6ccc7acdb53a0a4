"""Command-line options from typed dataclasses (tyro), wrong ones answered in one line; configurations from JSON files."""

import contextlib
import dataclasses
import functools
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, TypeVar

import tyro

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import check_format
from tna_jax.io.json_files import read_json, to_json
from tna_jax.programs.cli import arguments as cli_arguments
from tna_jax.programs.cli.arguments import Option
from tna_jax.programs.user_code import is_reference

Config = TypeVar("Config")


def parse(cls: type[Config], arguments: list[str], program: str) -> Config:
    """Returns the options of a program. Whether their values are among the choices and in range is for their `check`.

    `--config FILE` takes defaults from a JSON object of option names (a run's config.json, say); other options go before it.

    Args:
      cls: a dataclass; its fields are the options, their docstrings the help.

    Raises:
      UsageError: an unknown option (the nearest one is named) or a value of the wrong type.
    """
    _require_together(cls, arguments)
    arguments = _with_config(cls, list(arguments))
    options: type = cls
    form: Any = command_line(options, choices=False)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed: Any = tyro.cli(form, args=arguments, prog=f"tna {program}", add_help=False)
    except SystemExit:
        line = _one_line(errors.getvalue())
        raise UsageError(_missing(cls, line, program) or _not_of_type(cls, line) or line) from None
    return cls(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(form)})


@functools.cache
def command_line(cls: type, choices: bool) -> type:
    """Returns a dataclass like `cls` as tyro takes it: with or without the choices, which `ranges.check` refuses in our words.

    With them it is for completion: what names files and folders is a path, and `--config FILE` and `--quiet`, which are of every program, are options.
    """
    fields = [_field(option, choices) for option in cli_arguments.options(cls) if not (choices and option.hidden)]
    if choices:
        about = tyro.conf.arg(metavar="FILE", help="Take options from a JSON file; others go before it.")
        fields.append(("config", Annotated[Path | None, about], dataclasses.field(default=None)))
        about = tyro.conf.arg(help="Print results, warnings and errors alone.", aliases=["-q"])
        fields.append(("quiet", Annotated[bool, about, tyro.conf.FlagCreatePairsOff], dataclasses.field(default=False)))
    made = dataclasses.make_dataclass(cls.__name__, fields, frozen=True, kw_only=True)
    made.__doc__ = cls.__doc__
    return made


PATHS = ("DIR", "FILE", "MODEL", "PATH", "RUN")
"""What help calls the values that a shell completes as files and folders."""


def _field(option: Option, choices: bool) -> tuple[str, Any, Any]:
    names = option.choices or option.known
    path = choices and not names and (option.value in PATHS or option.field.endswith(("_from", "_file")))
    kind: Any = Literal[names] if choices and names else Path if path else option.kind
    kind = tuple[kind, ...] if option.many else kind
    kind = Optional[kind] if option.optional else kind  # noqa: UP045
    about = tyro.conf.arg(
        metavar=None if option.choices or option.kind is bool else option.value,
        aliases=[option.alias] if option.alias else None,
        help=option.doc,
        help_behavior_hint="" if option.default is None else None,
    )
    kind = Annotated[kind, tyro.conf.Positional, about] if option.metavar else Annotated[kind, about]
    value = Path(option.default) if path and isinstance(option.default, str) else option.default
    default = dataclasses.field() if value is cli_arguments.REQUIRED else dataclasses.field(default=value)
    return option.field, kind, default


def _require_together(cls: type, arguments: list[str]) -> None:
    """Raises UsageError for an option of several values that is given twice: the first ones would be lost without a word."""
    for option in cli_arguments.options(cls):
        times = sum(word.partition("=")[0] in (option.flag, option.alias or option.flag) for word in arguments)
        if option.many and not option.metavar and times > 1:
            raise UsageError(
                f"{option.flag} is given {times} times: write its values behind one, {option.flag} {option.value} {option.value}"
            )


def _missing(cls: type, line: str, program: str) -> str:
    """Says which options must be given and what they are; empty if an error is about something else."""
    required = [option for option in cli_arguments.options(cls) if option.default is cli_arguments.REQUIRED]
    value = re.match(r"Missing value for argument '([\w-]+)'", line)
    if value is None and not line.startswith("Missing from"):
        return ""
    absent = [
        option for option in required
        if (option.field == value[1] if value else re.search(rf"(?<![\w-]){re.escape(_written(option).split()[0])}(?![\w-])", line))
    ]  # fmt: skip
    named = [f"{_written(option)} is missing: {_first_words(option)}" for option in absent or required]
    return f"{'; '.join(named)}; tna {program} --help explains all options" if named else ""


def _not_of_type(cls: type, line: str) -> str:
    """Says which value is not of an option's type, and what the option takes; empty if an error is about something else."""
    wrong = re.match(r"Error parsing ([\w-]+): .*?(?:: '(.*)'|\['(.*?)'\].*)$", line)
    option = wrong and next((one for one in cli_arguments.options(cls) if wrong[1] in (one.flag, one.metavar)), None)
    if not wrong or not option:
        return ""
    takes = KINDS.get(option.kind, option.value)
    return f"{option.flag} must be {takes}{' each' if option.many else ''}, got {wrong[2] or wrong[3]}"


KINDS = {int: "a whole number", float: "a number"}
"""What options take, in words."""


def _written(option: Option) -> str:
    """Returns an option as a user writes it: `RUN`, `--out PATH (or -o)`."""
    alias = f" (or {option.alias})" if option.alias else ""
    return option.metavar or f"{option.flag} {option.value}{alias}"


def _first_words(option: Option) -> str:
    if option.choices:
        return f"one of {', '.join(map(str, option.choices))}"
    words = re.split(r"[:.;]( |$)", option.doc)[0]
    return words[:1].lower() + words[1:]


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
            rest = arguments[:i] + arguments[i + 2 :]
            return _file_options(cls, arguments[i + 1], rest) + rest
        if word.startswith("--config="):
            rest = arguments[:i] + arguments[i + 1 :]
            return _file_options(cls, word.partition("=")[2], rest) + rest
    return arguments


def _file_options(cls: type, name: str, rest: list[str]) -> list[str]:
    """The options of a file as words; code that `rest`, the user's own words, names instead has no recorded hash."""
    try:
        values = read_json(Path(name), once=True)
    except UsageError as error:
        raise UsageError(f"--config {name}: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {name}: expected a JSON object of option names")
    check_format(values, f"--config {name}")
    values = {key: value for key, value in values.items() if key not in ABOUT}
    known = {option.field for option in cli_arguments.options(cls)}
    strange = sorted(set(values) - known)
    if strange:
        raise UsageError(f"--config {name}: unknown options {', '.join(strange)}; known: {', '.join(sorted(known))}")
    values = checked_values(values, f"--config {name}", known)
    _require_fitting(cls, values, f"--config {name}: ")
    named = {word.partition("=")[0].removeprefix("--") for word in rest if word.startswith("--")}
    return to_words({key: value for key, value in values.items() if key.removesuffix(RECORDED) not in named})


ABOUT = ("format", "program", "started_with", "files")
"""What a run's config.json holds beside options."""


def from_values(cls: type[Config], values: dict[str, Any], where: str) -> Config:
    """Returns the options `values`, as a file holds them; raises UsageError, which names `where`, for a wrong type or name."""
    try:
        known = {option.field for option in cli_arguments.options(cls)}
        values = checked_values(values, "", known)
        _require_fitting(cls, values)
        return parse(cls, to_words(values), "")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _require_fitting(cls: type, values: dict[str, Any], front: str = "") -> None:
    """Raises UsageError for the first value of a file that cannot stand for its option, whatever is in it."""
    for option in cli_arguments.options(cls):
        value = values.get(option.field)
        if value is None:
            continue
        if option.metavar:
            raise UsageError(f"{front}{option.field} is for the command line alone: write {option.metavar} there")
        if (option.kind is bool) is not isinstance(value, bool):
            takes = "true or false" if option.kind is bool else KINDS.get(option.kind, "a text")
            raise UsageError(f"{front}{option.field} must be {takes}, got {json.dumps(value)}")
        inner = value if isinstance(value, list) else [value]
        if any((isinstance(one, bool | list | dict) and option.kind is not bool) or one is None for one in inner):
            raise UsageError(f"{front}{option.field} cannot be {json.dumps(value)}")
        if isinstance(value, list) and not option.many:
            raise UsageError(f"{front}{option.field} must be one value, got {json.dumps(value)}")


RECORDED = "_sha256"
"""Ends the name of the option beside one that may name code: the hash that the run recorded."""


def checked_values(values: dict[str, Any], where: str, known: Iterable[str]) -> dict[str, Any]:
    """Returns options of a file as they may be turned into words: none of them can become another option, or run code.

    Code that a file names is never named by the user: its hash stands beside it, empty where the file holds none.

    Raises:
      UsageError: a text that begins like an option, or what only a user may say.
    """
    front = f"{where}: " if where else ""
    if values.get("trust_code"):
        raise UsageError(f"{front}trust_code is for the command line alone")
    for key, value in values.items():
        texts = value if isinstance(value, list) else [value]
        if wrong := [text for text in texts if isinstance(text, str) and re.match(r"-+[^\d.]", text)]:
            raise UsageError(f"{front}{key} must not begin with a dash, got {wrong[0]!r}")
    hashes = [
        key
        for key, value in values.items()
        if f"{key}{RECORDED}" in known
        and any(is_reference(str(x)) for x in (value if isinstance(value, list) else [value]))
    ]
    return {**values, **{f"{key}{RECORDED}": values.get(f"{key}{RECORDED}") or NOT_RECORDED for key in hashes}}


NOT_RECORDED = "none"
"""Stands for the hash of code of which a file holds none: it is that of no file."""


def defaults(cls: type) -> dict[str, Any]:
    """Returns the options of a program that have a default, as a file holds them."""
    found = cli_arguments.options(cls)
    return {option.field: to_json(option.default) for option in found if option.default is not cli_arguments.REQUIRED}


def to_words(values: dict[str, Any]) -> list[str]:
    """Returns options as words of a command line."""
    return [word for key, value in values.items() for word in _words(key.replace("_", "-"), value)]


def _words(option: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", *map(str, value)] if isinstance(value, list) else [f"--{option}", str(value)]

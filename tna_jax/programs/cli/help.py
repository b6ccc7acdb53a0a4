"""What `tna PROGRAM --help` prints: the commonest options, or with `--help-all` every option, in sections."""

import os
import sys
import textwrap
from typing import Any

from tna_jax.programs.cli import printing
from tna_jax.programs.cli.arguments import OWN, REQUIRED, Option, options

SECTIONS = (OWN, "evaluation", "data", "network", "anchors", "training", "run", "machine")
"""In the order of the help; others follow the program's own."""
FEW = 14
"""A program with no more options shows them all."""
LONG = 44
"""Choices that take more columns are listed in the text."""


def text(name: str, cls: type, everything: bool = False, width: int | None = None) -> str:
    """Returns the help of the program `tna NAME`.

    Args:
      name: of the program.
      cls: its options; its docstring says what the program does, its `COMMON` names the commonest options.
      everything: whether to show all options; else the commonest ones.
      width: columns; default: those of the terminal, 100 at most.
    """
    width = width or printing.columns()
    found = [option for option in options(cls) if not option.hidden]
    common = getattr(cls, "COMMON", ())
    few = bool(common) and len(found) > FEW and not everything
    places = [option for option in found if option.metavar]
    usage = " ".join(["usage: tna", name, *map(_place, places), *(["[OPTIONS]"] if len(places) < len(found) else [])])
    parts = [usage, *(textwrap.fill(part, width) for part in _paragraphs(cls.__doc__ or ""))]
    if few:
        by_name = {option.field: option for option in found}
        parts.append(_section("the commonest options", [*places, *(by_name[field] for field in common)], width))
        rest = len(found) - len(places) - len(common)
        parts.append(f"tna {name} --help-all shows the other {rest} options as well.")
    else:
        names = dict.fromkeys([OWN, *(option.section for option in found if option.section not in SECTIONS), *SECTIONS])
        for section in names:
            held = [option for option in found if option.section == section]
            if held:
                parts.append(_section(f"tna {name}" if section == OWN else section, held, width))
    parts.append(_of_every_program(width))
    return "\n\n".join(part for part in parts if part)


def _of_every_program(width: int) -> str:
    return textwrap.fill(
        "Every program takes --config FILE, options from a JSON file such as a run's config.json, and -q or --quiet: results, "
        "warnings and errors alone are printed.",
        width,
    )


def _paragraphs(doc: str) -> list[str]:
    return [" ".join(part.split()) for part in doc.split("\n\n")]


def _place(option: Option) -> str:
    shown = f"{option.metavar} ..." if option.many else option.metavar
    return shown if option.default is REQUIRED else f"[{shown}]"


def _section(title: str, held: list[Option], width: int) -> str:
    indent = 26 if width >= 70 else 8
    lines = [_bold(f"{title}:")]
    for option in held:
        head = f"  {_head(option)}"
        body = textwrap.wrap(_body(option), width - indent) or [""]
        if len(head) + 2 <= indent:
            head, body = f"{head:<{indent}}{body[0]}", body[1:]
        lines += [head, *(" " * indent + line for line in body)]
    return "\n".join(lines)


def _head(option: Option) -> str:
    if option.metavar:
        return f"{option.metavar} ..." if option.many else option.metavar
    flag = f"{option.alias}, {option.flag}" if option.alias else option.flag
    if option.kind is bool:
        return f"--[no-]{option.field.replace('_', '-')}" if option.default is True else flag
    value = _choices(option)
    if not value or len(value) + len(flag) > LONG:
        value = option.value
    return f"{flag} {value}{' ...' if option.many else ''}"


def _choices(option: Option) -> str:
    return "{" + ",".join(map(str, option.choices)) + "}" if option.choices else ""


def _body(option: Option) -> str:
    """The text, then what can be said in brackets: choices that are too many for the head, the range, the default."""
    notes = [rule.note for rule in option.rules if rule.note]
    listed = bool(option.choices) and _choices(option) not in _head(option)
    choices = f" One of: {', '.join(map(str, option.choices))}." if listed else ""
    choices = f" Known: {', '.join(option.known)}." if option.known else choices
    if option.default is REQUIRED:
        notes.append("" if option.metavar else "required")
    elif option.default is not None and option.kind is not bool and option.default != ():
        notes.append(f"default: {_value(option.default)}")
    shown = "; ".join(note for note in notes if note)
    return f"{option.doc}{choices}{f' ({shown})' if shown else ''}"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bold(words: str) -> str:
    terminal = (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")
    )
    return f"\x1b[1m{words}\x1b[0m" if terminal else words

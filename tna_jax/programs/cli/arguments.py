"""What a dataclass of options says of each of them: type, choices, ranges, help, section. Help, checks and completion read it."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

REQUIRED = dataclasses.MISSING
"""Default of an option that must be given."""
OWN = "own"
"""Section of the options that are a program's own."""


VALUES = {
    "alphas": "X", "checkpoint": "DIR", "checkpoint_minutes": "MINUTES", "coordinator": "HOST:PORT", "data_dir": "DIR",
    "dataset": "NAME", "evaluate": "COMMAND", "log": "NAME,NAME", "memory_limit": "GB", "model_options": "KEY=VALUE", "objective_options": "KEY=VALUE",
    "out": "PATH", "pairs": "I-J", "to": "mean|I",
    "where": "REGEX", "freeze": "REGEX",
    "base": "PATH", "allow_different": "FIELD", "method_options": "KEY=VALUE", "recipe": "FILE", "shard_size": "SIZE", "weight": "'REGEX=X X'",
    "only": "REGEX", "skip": "REGEX", "strip_prefix": "PREFIX", "add_prefix": "PREFIX", "wheel": "FILE",
}  # fmt: skip
"""What help calls the value of an option, by field; of all others by type: N, X or NAME."""
KINDS = {int: "N", float: "X"}


class Positional(NamedTuple):
    """Marks a field that is given by its place on the command line: `Annotated[str, Positional("RUN")]`."""

    metavar: str


class Alias(NamedTuple):
    """A short name of an option: `Annotated[str, Alias("-o")]`."""

    flag: str


class Section(NamedTuple):
    """Puts an option into another section of the help than the one of its class: `Annotated[Placement, MACHINE]`."""

    name: str


class Known(NamedTuple):
    """The names among others that an option may have, for help and completion: `Annotated[str, Known(("mlp", "cnn"))]`."""

    names: tuple[str, ...]


class Hidden(NamedTuple):
    """Marks what a run records and no user writes: help and completion leave it out."""


class Only:
    """Says beside which other option an option does anything: `Only("algorithm", "fedprox")`; without values, where that one is given.

    Attributes:
      field: the other option.
      values: those that it must have, or one of which it must have among several.
    """

    def __init__(self, field: str, *values: str) -> None:
        self.field, self.values = field, values


DATA, ANCHORS, MACHINE = Section("data"), Section("anchors"), Section("machine")


class Option(NamedTuple):
    """One field of a dataclass of options."""

    field: str
    kind: Any
    """int, float, str or bool; of several values, that of each."""
    many: bool
    """Whether it takes any number of values."""
    optional: bool
    """Whether it may be None, which is an option that was not given."""
    choices: tuple[Any, ...]
    """The values it can have; empty where any will do."""
    rules: tuple[Any, ...]
    """What else its values must fulfil: each has `problem(flag, value)` and `note`, see `tna_jax.programs.cli.ranges`."""
    default: Any
    doc: str
    section: str
    """`SECTION` of the first class that has the field, or its own: data, network, anchors, training, run, machine, or `OWN`."""
    metavar: str
    """Of a positional argument; empty for all others."""
    alias: str
    known: tuple[str, ...] = ()
    """Values to complete, where others will do too."""
    hidden: bool = False
    only: Only | None = None
    """What must be given beside it, see `tna_jax.programs.cli.effects`."""

    @property
    def flag(self) -> str:
        """As it is written on the command line: `--batch-size`, or the metavar of a positional argument."""
        return self.metavar or f"--{self.field.replace('_', '-')}"

    @property
    def value(self) -> str:
        """What help calls its value: N for a whole number, X for another number, GB, DIR, ..."""
        return self.metavar or VALUES.get(self.field) or KINDS.get(self.kind, "NAME")


def options(cls: type) -> tuple[Option, ...]:
    """Returns the options of a dataclass in the order of its fields."""
    hints, docs = get_type_hints(cls, include_extras=True), _docs(cls)
    return tuple(_option(cls, field, hints[field.name], docs.get(field.name, "")) for field in dataclasses.fields(cls))


def _option(cls: type, field: Any, hint: Any, doc: str) -> Option:
    annotation, metadata = _split(hint)
    inner, optional, many = annotation, False, False
    if get_origin(inner) in (Union, types.UnionType):
        (inner,) = (part for part in get_args(inner) if part is not type(None))
        optional = True
    if get_origin(inner) is tuple:
        inner, many = get_args(inner)[0], True
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    return Option(
        field.name,
        type(choices[0]) if choices else inner,
        many,
        optional,
        choices,
        tuple(part for part in metadata if hasattr(part, "problem")),
        field.default,
        doc,
        next((part.name for part in metadata if isinstance(part, Section)), _section(cls, field.name)),
        next((part.metavar for part in metadata if isinstance(part, Positional)), ""),
        next((part.flag for part in metadata if isinstance(part, Alias)), ""),
        next((part.names for part in metadata if isinstance(part, Known)), ()),
        any(isinstance(part, Hidden) for part in metadata),
        next((part for part in metadata if isinstance(part, Only)), None),
    )


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _section(cls: type, field: str) -> str:
    first = next(base for base in reversed(cls.__mro__) if field in inspect.get_annotations(base))
    return str(first.__dict__.get("SECTION", OWN))


def _docs(cls: type) -> dict[str, str]:
    """The text that stands below each field, of the last class that has it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _own_docs(base)
    return found


@functools.cache
def _own_docs(cls: type) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, SyntaxError):
        return {}  # no source files: options without their texts
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = {}
    for field, text in zip(body, body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            value = getattr(text.value, "value", "")
            found[field.target.id] = " ".join(value.split()) if isinstance(value, str) else ""
    return found

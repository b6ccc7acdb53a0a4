"""Options that are written as pairs, KEY=VALUE: arguments of functions, values as in JSON, else text. Needs no JAX."""

import json
from typing import Any

from tna_jax.programs.cli.ranges import Rule


def values(pairs: tuple[str, ...] | None) -> dict[str, Any]:
    """Returns the arguments that the pairs stand for."""
    parts = (pair.partition("=") for pair in pairs or ())
    return {name: _value(text) for name, _, text in parts}


def _problem(flag: str, pairs: tuple[str, ...]) -> str:
    names = [pair.partition("=")[0] for pair in pairs]
    wrong = [pair for pair, name in zip(pairs, names, strict=True) if "=" not in pair or not name.isidentifier()]
    if wrong:
        return f"{flag} must be written KEY=VALUE, got {', '.join(wrong)}"
    again = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    return f"{flag} names {', '.join(again)} more than once" if again else ""


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


PAIRS = Rule(_problem)

"""Errors that are the user's to mend: shown as one line, exit code 2, no traceback. Needs no JAX."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class UsageError(ValueError):
    """A wrong option, file or folder. The message is one line and says what to do."""


def unknown(what: str, value: str, known: Iterable[str]) -> UsageError:
    """Returns the error for a name that is not among `known`, with the nearest right ones."""
    known = list(known)
    near = _near(value, known)
    hint = f"did you mean {near}? " if near else ""
    return UsageError(f"unknown {what} {value!r}: {hint}known: {', '.join(known)}")


def require_known(what: str, values: Iterable[str], names: Iterable[str]) -> None:
    """Raises UsageError for all of `values` that are not among `names`, with the nearest right ones of each."""
    names = list(names)
    wrong = [value for value in dict.fromkeys(values) if value not in names]
    if len(wrong) == 1:
        raise unknown(what, wrong[0], names)
    if wrong:
        listed = [f"{value!r}{f' (did you mean {near}?)' if (near := _near(value, names)) else ''}" for value in wrong]
        raise UsageError(f"unknown {what} {', '.join(listed)}; known: {', '.join(names)}")


def _near(value: str, names: list[str]) -> str:
    near = difflib.get_close_matches(value, names, n=2, cutoff=0.6) or difflib.get_close_matches(
        value, names, n=1, cutoff=0.4
    )
    return " or ".join(map(repr, near))


def collect_errors(*checks: Callable[[], Any]) -> None:
    """Runs all checks and raises one UsageError with the messages of those that failed."""
    wrong = []
    for check in checks:
        try:
            check()
        except UsageError as error:
            wrong.append(str(error))
    if wrong:
        raise UsageError("; ".join(dict.fromkeys(wrong)))

"""Errors that are the user's to mend: shown as one line, exit code 2, no traceback."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """A wrong option, file or folder. The message is one line and says what to do."""


def unknown(what: str, value: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is none of `known`, with the nearest right ones."""
    known = list(known)
    near = difflib.get_close_matches(value, known, n=2, cutoff=0.6) or difflib.get_close_matches(
        value, known, n=1, cutoff=0.4
    )
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UsageError(f"unknown {what} {value!r}: {hint}known: {', '.join(known)}")

"""Parameters of a test of which a few run by default; the rest are marked slow, and continuous integration runs a share of those."""

from collections.abc import Collection, Iterable

import pytest


def slow(*cases) -> list:
    """Returns `cases` marked slow; a tuple holds the values of several arguments, or of one: `(value,)`."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


def slow_but(quick: Collection, cases: Iterable) -> list:
    """Returns `cases`, all but those in `quick` marked slow."""
    return [case if case in quick else slow(case)[0] for case in cases]

"""What numbers options may have: one error names every option that is out of its range, and the range."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError
from tna_jax.masks import percent


class Range(NamedTuple):
    """Numbers that an option may have."""

    words: str
    """What it must do, as in `must be at least 1`."""
    holds: Callable[[Any], bool]


COUNT = Range("be at least 1", lambda value: value >= 1)
POSITIVE = Range("be above 0 and finite", lambda value: 0 < value < math.inf)
BOUND = Range("be above 0", lambda value: value > 0)
"""Of what may be infinite."""
NOT_NEGATIVE = Range("be at least 0 and finite", lambda value: 0 <= value < math.inf)
SHARE = Range("lie in [0, 1)", lambda value: 0 <= value < 1)
PART = Range("lie in (0, 1]", lambda value: 0 < value <= 1)
PROBABILITY = Range("lie in [0, 1]", lambda value: 0 <= value <= 1)


def require(settings: Any, ranges: Mapping[str, Range], also: Iterable[str] = ()) -> None:
    """Raises UsageError that names every one of the options that is out of its range; options that are `None` are not given.

    Args:
      settings: has the options.
      ranges: by option.
      also: what else is wrong, in words.
    """
    wrong = []
    for name, wanted in ranges.items():
        value = getattr(settings, name)
        if value is not None and not wanted.holds(value):
            hint = percent(value) if wanted is SHARE else ""
            wrong.append(f"--{name.replace('_', '-')} must {wanted.words}, got {value}{hint}")
    wrong += also
    if wrong:
        raise UsageError("; ".join(wrong))


def require_ratios(ratios: tuple[float, ...]) -> None:
    """Raises UsageError unless the mask ratios are one or more different numbers in [0, 1)."""
    wrong = [ratio for ratio in ratios if not SHARE.holds(ratio)]
    if wrong:
        words = f"must {SHARE.words}, got {', '.join(map(str, wrong))}{percent(wrong[0])}"
    elif not ratios or len(set(ratios)) < len(ratios):
        words = f"must be one or more different numbers, got {', '.join(map(str, ratios)) or 'none'}"
    else:
        return
    raise UsageError(f"--ratios (shares of anchored weights) {words}")

"""What values options may have: one error names every option that is out of its range, and the range."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError, require_known
from tna_jax.programs.cli.arguments import Option, options


class Range(NamedTuple):
    """Numbers that an option may have; written beside its type: `epochs: Annotated[int, COUNT]`."""

    words: str
    """What it must do, as in `must be at least 1`."""
    holds: Callable[[Any], bool]
    note: str = ""
    """What the help says of it; empty where it goes without saying."""

    def problem(self, flag: str, value: Any) -> str:
        """What is wrong with a value, or with the values of a tuple; empty if nothing is."""
        wrong = [one for one in (value if isinstance(value, tuple) else (value,)) if not self.holds(one)]
        hint = _percent(wrong[0]) if wrong and self is SHARE else ""
        return f"{flag} must {self.words}, got {', '.join(map(str, wrong))}{hint}" if wrong else ""


class Rule(NamedTuple):
    """What values an option may have, where that is more than a range; written beside its type like one."""

    problem: Callable[[str, Any], str]
    """From the option as it is written and its value to what is wrong with it; empty if nothing is."""
    note: str = ""


def _percent(ratio: float) -> str:
    return f"; did you mean {ratio / 100:g}?" if 2 <= ratio <= 100 else ""


COUNT = Range("be at least 1", lambda value: value >= 1)
TWO = Range("be at least 2", lambda value: value >= 2, "2 or more")
THREE = Range("be at least 3", lambda value: value >= 3, "3 or more")
FOUR = Range("be at least 4", lambda value: value >= 4, "4 or more")
POSITIVE = Range("be above 0 and finite", lambda value: 0 < value < math.inf)
BOUND = Range("be above 0", lambda value: value > 0)
"""Of what may be infinite."""
NOT_NEGATIVE = Range("be at least 0 and finite", lambda value: 0 <= value < math.inf)
SEED = Range("lie in 0 to 4294967295", lambda value: 0 <= value < 2**32)
"""`tna_jax.prng.LAST_SEED`, without loading JAX: keys tell no larger ones apart."""
SHARE = Range("lie in [0, 1)", lambda value: 0 <= value < 1, "in [0, 1)")
PART = Range("lie in (0, 1]", lambda value: 0 < value <= 1, "in (0, 1]")
PROBABILITY = Range("lie in [0, 1]", lambda value: 0 <= value <= 1, "in [0, 1]")


def _ratios(flag: str, ratios: tuple[float, ...]) -> str:
    wrong = [ratio for ratio in ratios if not SHARE.holds(ratio)]
    if wrong:
        words = f"must {SHARE.words}, got {', '.join(map(str, wrong))}{_percent(wrong[0])}"
    elif not ratios or len({f"{ratio:g}" for ratio in ratios}) < len(ratios):  # as tables and folders write them
        hint = "; of no more than six digits" if ratios and len(set(ratios)) == len(ratios) else ""
        words = f"must be one or more different numbers, got {', '.join(map(str, ratios)) or 'none'}{hint}"
    else:
        return ""
    return f"{flag} (shares of anchored weights) {words}"


def _pattern(flag: str, pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{flag}: {flag.removeprefix('--')}={pattern!r} is no regular expression: {error}"
    return ""


def _different(flag: str, values: tuple[Any, ...]) -> str:
    again = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    words = f"got {', '.join(again)} more than once" if again else "got none"
    return "" if values and not again else f"{flag} must name one or more, each once; {words}"


def _once(flag: str, values: tuple[Any, ...]) -> str:
    return _different(flag, values) if values else ""


RATIOS = Rule(_ratios, "each in [0, 1)")
PATTERN = Rule(_pattern)
DIFFERENT, ONCE = Rule(_different), Rule(_once)


FILES = ("FILE", "MODEL", "PATH", "RUN")
"""What help calls the values that name files and folders to read or write; an empty one would be the folder that the user is in, or none."""


def check(settings: Any) -> None:
    """Raises UsageError that names every option of a dataclass that is none of its choices or out of its range."""
    wrong = [problem for option in options(type(settings)) if (problem := _problem(option, settings))]
    wrong = wrong or _last_seed(settings)
    if wrong:
        raise UsageError("; ".join(wrong))


def _last_seed(settings: Any) -> list[str]:
    """What is wrong with the last of several seeds, which no option names."""
    count = getattr(settings, "seeds", None)
    name = "first_seed" if hasattr(settings, "first_seed") else "seed"
    if not isinstance(count, int) or not hasattr(settings, name):
        return []
    last = getattr(settings, name) + count - 1
    return [] if SEED.holds(last) else [f"the last of --seeds {count} must {SEED.words}, got {last}"]


def _problem(option: Option, settings: Any) -> str:
    value = getattr(settings, option.field)
    if value is None and option.optional:
        return ""
    if option.value in FILES and "" in (value if isinstance(value, tuple) else (value,)):
        return f"{option.flag} must not be empty"
    for rule in option.rules:
        if problem := rule.problem(option.flag, value):
            return str(problem)
    try:
        if option.choices:
            require_known(option.flag, value if option.many else [value], option.choices)
    except UsageError as error:
        return str(error)
    return ""

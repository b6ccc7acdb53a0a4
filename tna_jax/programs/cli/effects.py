"""Options that do something only beside another one: where they were given and do nothing, they are refused instead of left aside in silence.

The condition stands beside the option's type: `prox_mu: Annotated[float, NOT_NEGATIVE, Only("algorithm", "fedprox")]`.
"""

from collections.abc import Collection
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.arguments import Only, options


def check(settings: Any) -> None:
    """Raises UsageError that names every option of a dataclass that differs from its default and does nothing beside the others.

    A run that is resumed passes: it may be from before an option was refused.
    """
    if getattr(settings, "resume", False):
        return
    idle: dict[str, list[str]] = {}
    for option in options(type(settings)):
        if option.only is not None and getattr(settings, option.field) != option.default:
            reason = _reason(option.only, settings)
            if reason:
                idle.setdefault(reason, []).append(option.flag)
    if idle:
        raise UsageError("; ".join(_sentence(flags, reason) for reason, flags in idle.items()))


def given(settings: Any, names: Collection[str]) -> list[str]:
    """Returns the flags of those of the named options that differ from their defaults."""
    return [o.flag for o in options(type(settings)) if o.field in names and getattr(settings, o.field) != o.default]


def refuse(settings: Any, names: Collection[str], reason: str) -> None:
    """Raises UsageError where one of the named options differs from its default; unless a run is resumed.

    Args:
      settings: dataclass of options.
      names: fields.
      reason: what is said behind `--a, --b do nothing`, for example `for texts`.
    """
    flags = given(settings, names)
    if flags and not settings.resume:
        raise UsageError(f"{nothing(flags)} {reason}")


def nothing(flags: list[str]) -> str:
    """Returns `--a, --b do nothing`."""
    return f"{', '.join(flags)} {'do' if len(flags) > 1 else 'does'} nothing"


def _sentence(flags: list[str], reason: str) -> str:
    return f"{nothing(flags)} without {reason}"


def _reason(only: Only, settings: Any) -> str:
    """Returns what an option lacks, as a user writes it; empty where it has what it needs."""
    flag, value = f"--{only.field.replace('_', '-')}", getattr(settings, only.field)
    if not only.values:
        return "" if value else flag
    held = value if isinstance(value, tuple) else (value,)
    if any(one in only.values for one in held):
        return ""
    *others, last = only.values
    wanted = f"{', '.join(others)} or {last}" if others else last
    return f"{flag} {wanted} (it is {' '.join(map(str, held))})"

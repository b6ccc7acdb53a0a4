"""Options that do something only beside another one: where they were given and do nothing, they are refused instead of left aside in silence.

The condition stands beside the option's type: `prox_mu: Annotated[float, NOT_NEGATIVE, Only("algorithm", "fedprox")]`.
"""

from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.arguments import Only, options


def check(settings: Any) -> None:
    """Raises UsageError that names every option of a dataclass that differs from its default and does nothing beside the others."""
    idle: dict[str, list[str]] = {}
    for option in options(type(settings)):
        if option.only is not None and getattr(settings, option.field) != option.default:
            reason = _reason(option.only, settings)
            if reason:
                idle.setdefault(reason, []).append(option.flag)
    if idle:
        raise UsageError("; ".join(_sentence(flags, reason) for reason, flags in idle.items()))


def _sentence(flags: list[str], reason: str) -> str:
    return f"{', '.join(flags)} {'do' if len(flags) > 1 else 'does'} nothing without {reason}"


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

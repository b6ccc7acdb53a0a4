"""Whether a function of the user's own takes the options that were given for it: said before it is called."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from tna_jax.io.errors import UsageError


def check_arguments(
    function: Callable[..., Any], options: dict[str, Any], place: str, flag: str, reserved: tuple[str, ...] = ()
) -> set[str]:
    """Returns those of the `reserved` parameters that the function has, which the caller fills.

    Args:
      function: of the user's own, or a class.
      options: the arguments that the user has set by name.
      place: where the function was named, for errors: `--model ./net.py:create`.
      flag: the option that sets arguments: `--model-options`.
      reserved: parameters that no option sets.

    Raises:
      UsageError: options that it does not take, or lacks.
    """
    called = inspect.getattr_static(function, "__init__") if isinstance(function, type) else function  # NNX hides them
    if isinstance(function, type) and dataclasses.is_dataclass(function):
        called = function  # a Linen module: its fields
    try:
        parameters = dict(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return set()
    parameters.pop("self", None)
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes = [name for name in named if name not in (*reserved, "parent", "name")]
    if odd := [name for name in options if name in reserved or (name not in named and not any_name)]:
        raise UsageError(f"{place}: {flag} {', '.join(odd)}: it takes {', '.join(takes) or 'no options'}")
    if lacking := [name for name in takes if named[name].default is inspect.Parameter.empty and name not in options]:
        raise UsageError(f"{place}: it needs {flag} {' '.join(f'{name}=...' for name in lacking)}")
    return set(reserved) & set(named)

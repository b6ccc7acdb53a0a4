"""An objective of the user's own (`--objective ./loss.py:create`): its function, called with its options, once."""

import functools
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.objectives import Objective
from tna_jax.programs.cli import pairs
from tna_jax.programs.user_code import UserFunction, resolve
from tna_jax.programs.user_code.arguments import check_arguments
from tna_jax.programs.user_code.resolve import line_of


def function_of(settings: Any) -> UserFunction:
    """Returns the function that `--objective` names; UsageError where it is not to be run, see `tna_jax.programs.user_code.resolve`."""
    return resolve(settings.objective, "--objective", settings.objective_sha256, settings.trust_code)


def build(settings: Any) -> Objective:
    """Returns the objective that the user's function creates.

    Raises:
      UsageError: the function fails, takes other options, or returns something else.
    """
    return _build(function_of(settings), tuple(settings.objective_options or ()))


@functools.lru_cache
def _build(named: UserFunction, options: tuple[str, ...]) -> Objective:
    """Cached: programs are compiled for an objective, and what it is made of may be new functions at each call."""
    place, arguments = f"--objective {named.reference}", pairs.values(options)
    check_arguments(named.function, arguments, place, "--objective-options")
    try:
        objective = named.function(**arguments)
        hash(objective)
    except Exception as error:
        file = named.reference.rpartition(":")[0]
        raise UsageError(f"{place}: creating the objective fails: {line_of(error, file)}") from error
    if not isinstance(objective, Objective):
        raise UsageError(
            f"{place}: returned {type(objective).__name__}, expected a tna_jax.objectives.Objective, made of a loss (outputs, targets)"
        )
    return objective


def line(settings: Any, error: Exception) -> str:
    """Returns how an error of the user's loss ends a message: what it says and in which line; nothing for a shipped objective."""
    if not settings.own_objective:
        return ""
    return f": {line_of(error, function_of(settings).reference.rpartition(':')[0])}"

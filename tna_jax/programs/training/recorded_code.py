"""Code of the user's own as a run records it: by its absolute path and the hash of its file."""

import dataclasses
from typing import Any, TypeVar

from tna_jax.programs.training import own_models, own_objectives

Options = TypeVar("Options", bound=Any)


def recorded(settings: Options) -> Options:
    """Returns the options with the network and the objective as a run records them. Runs the code.

    Raises:
      UsageError: see `tna_jax.programs.user_code.resolve`.
    """
    changes: dict[str, str | None] = {}
    for option, is_own, function_of in (
        ("model", settings.own_model, own_models.function_of),
        ("objective", settings.own_objective, own_objectives.function_of),
    ):
        named = function_of(settings) if is_own else None
        changes |= {f"{option}_sha256": named.sha256 if named else None}
        changes |= {option: named.reference} if named else {}
    return dataclasses.replace(settings, **changes)

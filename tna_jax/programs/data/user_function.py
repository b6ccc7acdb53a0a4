"""Data from a function of the user's own, `./file.py:load`: called without arguments, its arrays by name."""

from collections.abc import Mapping
from typing import Any

from tna_jax.programs.data.arrays import NAMES
from tna_jax.programs.data.source import DataError
from tna_jax.programs.user_code import UserFunction
from tna_jax.programs.user_code.resolve import line_of


def read(user: UserFunction) -> dict[str, Any]:
    """Calls the function and returns its arrays by name.

    Raises:
      DataError: it fails, or returns neither four arrays nor a mapping.
    """
    try:
        value = user.function()
    except Exception as error:
        raise DataError(f"{user.reference} fails: {line_of(error, user.reference.rpartition(':')[0])}") from error
    if isinstance(value, Mapping):
        return {str(key): value[key] for key in value}
    if isinstance(value, tuple | list) and len(value) == len(NAMES):
        return dict(zip(NAMES, value, strict=True))
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    raise DataError(
        f"{user.reference} returned {type(value).__name__}{size}, expected ({', '.join(NAMES)}) or a mapping with these names"
    )

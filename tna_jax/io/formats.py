"""The number that says which version of the project's file formats a file has. Needs no JAX."""

from typing import Any

from tna_jax.io.errors import UsageError

FORMAT = 1
"""Of checkpoints and of the JSON files of a run. A program reads its own and earlier ones, and refuses later ones."""


def check_format(value: dict[str, Any], where: str) -> None:
    """Raises UsageError if `value` says that a later version of this project wrote it.

    Args:
      value: a JSON object, whose `format` is looked at (1 if it has none).
      where: the file, for the message.
    """
    number = value.get("format", FORMAT)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UsageError(f"{where}: format is {number!r}, expected a number from 1 to {FORMAT}")
    if number > FORMAT:
        raise UsageError(f"{where} has format {number}, this version reads up to {FORMAT}: install a newer tna_jax")

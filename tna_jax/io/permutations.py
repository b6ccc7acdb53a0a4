"""Files of permutations of hidden units: what `tna rebasin --permutations` writes, by group name and pair."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT, check_format
from tna_jax.io.json_files import read_json, write_json


class StoredPermutation(NamedTuple):
    """The permutation that matches one model to another."""

    pair: tuple[int, int]
    """Numbers of the models: the second was matched to the first."""
    method: str
    """By what they were matched: `weight`, `activation`."""
    permutation: dict[str, np.ndarray]
    """By group, (units,) ints, as `tna_jax.matching.apply_permutation` takes it for the second model."""


def save_permutations(path: str | os.PathLike[str], permutations: Iterable[StoredPermutation], **facts: Any) -> None:
    """Writes permutations as JSON, whole or not at all.

    Args:
      path: the file.
      permutations: of one network.
      facts: what else the file should say, JSON's own types.
    """
    matchings = [stored._asdict() for stored in permutations]
    write_json(Path(path), {"format": FORMAT, **facts, "matchings": matchings}, indent=None)


def load_permutations(path: str | os.PathLike[str]) -> list[StoredPermutation]:
    """Reads permutations, to be applied by `tna_jax.matching.apply_permutation`.

    Raises:
      UsageError: it is not such a file, or holds what is not a permutation; all groups of which that is so are named.
    """
    contents = read_json(Path(path))
    matchings = contents.get("matchings") if isinstance(contents, dict) else None
    if not isinstance(matchings, list):
        raise UsageError(f"{path} is not a file of permutations (it has no list of matchings)")
    check_format(contents, str(path))
    result: list[StoredPermutation] = []
    wrong: list[str] = []
    for i, matching in enumerate(matchings):
        try:
            first, second = map(int, matching["pair"])
            orders = {str(name): np.asarray(order) for name, order in dict(matching["permutation"]).items()}
            stored = StoredPermutation((first, second), str(matching["method"]), orders)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: matching {i} must hold pair, method and permutation") from error
        result.append(stored)
        wrong += [
            f"{name} of {first}-{second}" for name, order in orders.items()
            if order.dtype.kind != "i" or not np.array_equal(np.sort(order), np.arange(order.size))
        ]  # fmt: skip
    if wrong:
        raise UsageError(f"{path}: not permutations of the units of a group: {', '.join(wrong)}")
    return result

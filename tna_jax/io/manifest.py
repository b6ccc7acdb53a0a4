"""What a checkpoint holds, leaf by leaf, with checksums: how damage is told from a checkpoint of another run."""

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import optax

from tna_jax import trees
from tna_jax.io.errors import UsageError

FORMAT = 1
"""Of checkpoints and of the JSON files of a run. A program reads its own and earlier ones, and refuses later ones."""


class Damaged(ValueError):
    """The data is not what was written."""


class Leaf(NamedTuple):
    """One array of a checkpoint."""

    name: str
    """`params/Dense_0/kernel`"""
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    """Of the array's bytes in C order, hexadecimal."""


def check_format(value: dict[str, Any], where: str) -> None:
    """Raises UsageError if `value` says that a later version of this project wrote it."""
    found = value.get("format", FORMAT)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UsageError(f"{where}: format is {found!r}, expected a number from 1 to {FORMAT}")
    if found > FORMAT:
        raise UsageError(f"{where} has format {found}, this version reads up to {FORMAT}: install a newer tna_jax")


def named(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by name, in the order of `jax.tree.leaves`."""
    leaves = trees.named_leaves(tree)
    return {trees.name(path): leaf for path, leaf in leaves if not isinstance(leaf, optax.MaskedNode)}


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes in C order, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def describe(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The manifest of named arrays, in JSON's types; it carries its own checksum."""
    leaves = [[name, list(array.shape), str(array.dtype), digest(array)] for name, array in arrays.items()]
    return {"format": FORMAT, "leaves": leaves, "sha256": _own(leaves)}


def parse(value: Any, where: str) -> list[Leaf]:
    """The leaves of a manifest.

    Raises:
      Damaged: it is not what `describe` made.
      UsageError: a later version wrote it.
    """
    if not isinstance(value, dict) or not isinstance(value.get("leaves"), list):
        raise Damaged("its list of contents cannot be read")
    if value.get("sha256") != _own(value["leaves"]):
        raise Damaged("its list of contents does not have its checksum")
    check_format(value, where)
    leaves = []
    for entry in value["leaves"]:
        match entry:
            case [str(name), [*shape], str(dtype), str(sha256)] if all(type(n) is int and n >= 0 for n in shape):
                leaves.append(Leaf(name, tuple(shape), dtype, sha256))
            case _:
                raise Damaged("its list of contents holds something else than arrays")
    return leaves


def _own(leaves: Any) -> str:
    return hashlib.sha256(json.dumps(leaves).encode()).hexdigest()


def misfits(found: dict[str, tuple[tuple[int, ...], str]], wanted: dict[str, tuple[tuple[int, ...], str]]) -> str:
    """All differences of two sets of named (shape, dtype) in words; empty where there is none."""

    def words(name: str) -> str:
        (shape, dtype), (other, kind) = found[name], wanted[name]
        return f"{name} ({dtype} {list(shape)} instead of {kind} {list(other)})"

    lists = {
        "missing": [name for name in wanted if name not in found],
        "too many": [name for name in found if name not in wanted],
        "of another shape or type": [words(name) for name in found if name in wanted and found[name] != wanted[name]],
    }
    return "; ".join(f"{title}: {', '.join(names)}" for title, names in lists.items() if names)

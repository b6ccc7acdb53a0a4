"""What a checkpoint holds, leaf by leaf, with checksums: how damage is told from a checkpoint of another run.

Importing it needs no JAX; `named` does.
"""

import errno
import hashlib
import json
from typing import Any, NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT, check_format

Form = tuple[tuple[int, ...], str]
"""Shape and dtype of an array."""


class Damaged(ValueError):
    """The data is not what was written."""


UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the system says of data that may be what was written: a file of someone else's, a disk that does not answer, too little of something."""


class Leaf(NamedTuple):
    """One array of a checkpoint."""

    name: str
    """`params/Dense_0/kernel`"""
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    """Of the array's bytes in C order, hexadecimal."""


def named(tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a pytree by name (`params/Dense_0/kernel`), in the order of `jax.tree.leaves`.

    Raises:
      UsageError: the paths of several leaves join to one name (`{"a/b": x}` beside `{"a": {"b": y}}`).
    """
    import optax

    from tna_jax import trees

    arrays: dict[str, np.ndarray] = {}
    twice = []
    for path, leaf in trees.named_leaves(tree):
        if isinstance(leaf, optax.MaskedNode):
            continue
        name = trees.name(path)
        twice += [name] if name in arrays else []
        arrays[name] = leaf
    if twice:
        raise UsageError(
            f"several leaves would be called {', '.join(twice)}: a key holds the `/` that joins keys; rename it"
        )
    return arrays


def digest(array: np.ndarray) -> str:
    """Computes the SHA-256 of an array's bytes in C order, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def describe(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the manifest of named arrays in JSON's types; it carries its own checksum."""
    leaves = [[name, list(array.shape), str(array.dtype), digest(array)] for name, array in arrays.items()]
    return {"format": FORMAT, "leaves": leaves, "sha256": _checksum(leaves)}


def parse(value: Any, where: str) -> list[Leaf]:
    """Reads a manifest.

    Args:
      value: what `describe` returned, after a round through JSON.
      where: the file, for the message.

    Raises:
      Damaged: it is not what `describe` returned.
      UsageError: a later version wrote it.
    """
    if not isinstance(value, dict) or not isinstance(value.get("leaves"), list):
        raise Damaged("its list of contents cannot be read")
    if value.get("sha256") != _checksum(value["leaves"]):
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


def _checksum(leaves: Any) -> str:
    return hashlib.sha256(json.dumps(leaves).encode()).hexdigest()


def misfits(present: dict[str, Form], expected: dict[str, Form]) -> str:
    """Describes all differences of two sets of named arrays in words: missing, too many, of another shape or dtype.

    Returns:
      `missing: a, b; too many: c`, empty where there is no difference.
    """

    def comparison(name: str) -> str:
        (shape, dtype), (other_shape, other_dtype) = present[name], expected[name]
        return f"{name} ({dtype} {list(shape)} instead of {other_dtype} {list(other_shape)})"

    differing = [name for name in present if name in expected and present[name] != expected[name]]
    lists = {
        "missing": [name for name in expected if name not in present],
        "too many": [name for name in present if name not in expected],
        "of another shape or type": list(map(comparison, differing)),
    }
    return "; ".join(f"{title}: {', '.join(names)}" for title, names in lists.items() if names)

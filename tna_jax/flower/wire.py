"""Arrays by name, as they travel: `delta/float32`, `params/bfloat16`; and short digests by which two sides know that they agree.

A part of a message (`params`, `delta`, `state`, ...) is what `tna_jax.federated.packing` makes of a tree: a vector for each
dtype. Dtypes that NumPy's file format does not know (bfloat16, 8-bit floats) travel as unsigned integers of the same bits.
"""

import hashlib
from typing import Any

import jax
import ml_dtypes
import numpy as np

from tna_jax import trees
from tna_jax.federated.packing import Packed
from tna_jax.flower.sanitize import sanitize

Arrays = dict[str, np.ndarray]
"""By name, `PART/DTYPE`."""
DTYPES = {
    str(dtype): dtype
    for dtype in map(np.dtype, (
        bool, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
        "complex64", "complex128", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e4m3b11fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz,
    ))
}  # fmt: skip
"""What may travel, by name. What another machine calls a dtype is looked up here, never made into one."""


def to_wire(parts: dict[str, Packed]) -> Arrays:
    """Returns packed trees, by the name of the part, as arrays by name."""
    return {
        f"{part}/{dtype}": vector.view(_carrier(vector.dtype))
        for part, packed in parts.items()
        for dtype, vector in packed.items()
    }


def from_wire(arrays: Arrays, parts: tuple[str, ...]) -> tuple[dict[str, Packed], list[str]]:
    """Returns the packed trees of the parts, and what is wrong with the arrays in words (empty if nothing is).

    Lengths are not checked here; `packing.misfits` does that.
    """
    packed: dict[str, Packed] = {part: {} for part in parts}
    problems = []
    for name, vector in arrays.items():
        part, _, kind = name.partition("/")
        dtype = DTYPES.get(kind)
        if part not in packed or dtype is None:
            problems.append(f"an array '{sanitize(name)}' was not asked for")
        elif vector.dtype != _carrier(dtype):
            problems.append(f"{name} has the type {sanitize(str(vector.dtype))}, expected {_carrier(dtype)}")
        else:
            packed[part][kind] = vector.view(dtype)
    return packed, problems


def array_names(parts: dict[str, Any]) -> set[str]:
    """Returns what the arrays of a message with these trees (shapes are enough) may be called."""
    return {f"{part}/{leaf.dtype}" for part, tree in parts.items() for leaf in jax.tree.leaves(tree)}


def total_bytes(arrays: Arrays) -> int:
    """Counts the bytes of the arrays' contents; Flower adds about 200 bytes to each."""
    return sum(vector.nbytes for vector in arrays.values())


def digest(tree: Any) -> str:
    """Returns 128 bits of SHA-256 over names, shapes, dtypes and bytes of a tree's arrays, hexadecimal."""
    return _digest(tree, True)


def shape_digest(tree: Any) -> str:
    """Returns the `digest` of names, shapes and dtypes only; takes shapes as well."""
    return _digest(tree, False)


def _digest(tree: Any, contents: bool) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(trees.named_leaves(tree), key=lambda named: named[0]):
        digest.update(f"{trees.name(path)} {leaf.dtype} {tuple(leaf.shape)}\n".encode())
        if contents:
            array = np.ascontiguousarray(np.asarray(leaf))
            digest.update(np.packbits(array) if array.dtype == bool else array.reshape(-1).view(np.uint8))
    return digest.hexdigest()[:32]


def _carrier(dtype: np.dtype) -> np.dtype:
    """The dtype that travels."""
    return dtype if dtype.isbuiltin == 1 else np.dtype(f"u{dtype.itemsize}")

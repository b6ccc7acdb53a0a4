"""Arrays by name in safetensors files, and pytrees of any framework from and to them. Nothing in a file is ever executed.

    tensors.save("model.safetensors", {"params": params})
    params = tensors.load("model.safetensors", like=params, part="params")   # Linen, NNX, Equinox: matched by name

The header of a file is checked here, entry by entry, before anything is read: names once each, known types, offsets that
tile the file exactly. Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tna_jax import paths
from train import manifest, pickled
from train.errors import UsageError
from train.results import whole

TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "U32": np.uint32, "I32": np.int32,
    "U64": np.uint64, "I64": np.int64, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64,
    "C64": np.complex64,
}  # fmt: skip
"""What a file may hold. 8-bit floats are not read."""
HEADER_LIMIT = 16 * 2**20
"""Bytes; about 200,000 arrays."""


def write(file: str | Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Writes arrays by name, whole or not at all; dtypes as in `TYPES`. Raises UsageError where it cannot be written."""
    ready = {name: np.array(array, order="C", copy=None) for name, array in arrays.items()}
    known = {np.dtype(kind) for kind in TYPES.values()}
    strange = [f"{name} ({array.dtype})" for name, array in ready.items() if array.dtype not in known]
    if strange:
        raise UsageError(f"cannot be kept in a safetensors file: {', '.join(strange)}")
    try:
        with whole(Path(file)) as unfinished:
            save_file(ready, unfinished, metadata)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}") from error


def read(file: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file by name, and its metadata.

    Raises:
      UsageError: it cannot be read or is no sound safetensors file; the message says what is wrong.
    """
    try:
        with open(file, "rb") as opened:
            entries, metadata, start = _header(opened, Path(file).stat().st_size)
            arrays = {}
            for name, (dtype, shape, begin) in entries.items():
                opened.seek(start + begin)
                arrays[name] = np.fromfile(opened, dtype, math.prod(shape)).reshape(shape)
        return arrays, metadata
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is no sound safetensors file: {pickled.hint(file) or error}") from error


Entry = tuple[np.dtype, tuple[int, ...], int]
"""Type, shape, first byte."""


def _header(opened: BinaryIO, size: int) -> tuple[dict[str, Entry], dict[str, str], int]:
    """The entries, the metadata and where the data begins; raises ValueError for whatever is not as the format says."""
    length = int.from_bytes(opened.read(8), "little")
    if size < 10 or length > size - 8:
        raise ValueError(f"its header should take {length} bytes, the file has {size}")
    if length > HEADER_LIMIT:
        raise ValueError(f"its header takes {length} bytes, more than {HEADER_LIMIT}")
    try:
        header = json.loads(opened.read(length).decode(), object_pairs_hook=_once, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata must be text by name")
    entries, spans = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry)
        entries[name] = (dtype, shape, begin)
        spans.append((begin, end, name))
    place = 0
    for begin, end, name in sorted(spans):
        if begin != place:
            raise ValueError(f"{name!r} begins at byte {begin} of the data, where {place} was expected")
        place = end
    if place != size - 8 - length:
        raise ValueError(f"its arrays take {place} bytes, the file holds {size - 8 - length}")
    return entries, metadata, 8 + length


def _entry(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)], **rest} if not rest:
            pass
        case _:
            raise ValueError(f"{name!r} must have dtype, shape, data_offsets and nothing else")
    if kind not in TYPES:
        raise ValueError(f"{name!r} has the type {kind[:20]!r}; known: {', '.join(TYPES)}")
    if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError(f"{name!r} has an impossible shape")
    dtype = np.dtype(TYPES[kind])
    if not 0 <= begin <= end or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"{name!r} has {end - begin} bytes of data, {kind} {shape} takes {math.prod(shape) * dtype.itemsize}"
        )
    return dtype, tuple(shape), begin, end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = sorted({name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1})[:5]
        raise ValueError(f"named more than once: {', '.join(map(repr, twice))}")
    return found


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no number of the format")


def save(file: str | Path, tree: paths.Tree, metadata: dict[str, str] | None = None) -> None:
    """Writes the arrays of a pytree under their paths: `params/Dense_0/kernel`. Raises as `write`."""
    write(file, manifest.named(tree), metadata)


def load(file: str | Path, like: paths.Tree, part: str = "") -> paths.Tree:
    """A pytree of the structure of `like` (a Linen dict, an NNX state, an Equinox module) with the arrays of a file.

    Args:
      like: arrays or shapes; leaves are matched by path, and must have the shape and dtype of their partners.
      part: take only what is under this name, `params` or `state` of an exported model; others in the file are left alone.

    Raises:
      UsageError: the file cannot be read, or does not fit; all leaves that are missing, too many or of another shape or dtype
        are listed.
    """
    return fill(like, read(file)[0], part, str(file))


def fill(like: paths.Tree, arrays: dict[str, np.ndarray], part: str = "", where: str = "the file") -> paths.Tree:
    """As `load`, from arrays by name."""
    under = f"{part}/" if part else ""
    found = {name.removeprefix(under): array for name, array in arrays.items() if name.startswith(under)}
    wanted = {name: (tuple(leaf.shape), str(leaf.dtype)) for name, leaf in manifest.named(like).items()}
    problems = manifest.misfits({name: (array.shape, str(array.dtype)) for name, array in found.items()}, wanted)
    if problems:
        raise UsageError(f"{where} does not fit this tree; {problems}")
    return paths.like(like, [jnp.asarray(found[name]) for name in wanted])

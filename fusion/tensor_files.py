"""Reads the headers of safetensors files and sharded Hugging Face folders, so that their tensors can be read piece by piece.

A safetensors file is 8 bytes, the length of a JSON header; the header, which gives each tensor's dtype, shape and place; the
tensors' bytes. The library of that name writes a file from tensors that are all in memory, hence the few lines here.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from train import pickled
from train.errors import UsageError

DTYPES = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
LARGEST_HEADER = 100_000_000
"""Bytes, as in the format's own library."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its bytes are `start` to `start + bytes` of the file."""

    file: Path
    kind: str
    """The format's name of its dtype."""
    shape: tuple[int, ...]
    start: int

    @property
    def dtype(self) -> np.dtype:
        """As NumPy has it (little-endian)."""
        return DTYPES[self.kind]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it can be averaged."""
        return self.kind.startswith(("F", "BF"))


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A safetensors file, or a folder of them.

    Attributes:
      path: the file or folder.
      tensors: by name, in the order of the files.
      files: names of the tensors in each file, by the file's name.
      metadata: text by text, of each file.
    """

    path: Path
    tensors: dict[str, Tensor]
    files: dict[str, list[str]]
    metadata: dict[str, dict[str, str]]

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.size * tensor.dtype.itemsize for tensor in self.tensors.values())


def open_checkpoint(name: str) -> Checkpoint:
    """The headers of a safetensors file, or of a folder with `model.safetensors.index.json` or one `model.safetensors`.

    Raises:
      UsageError: nothing there, no such file, or one that is damaged.
    """
    path = Path(name)
    if path.is_dir():
        if (path / INDEX).is_file():
            return _sharded(path)
        if not (path / SINGLE).is_file():
            raise UsageError(f"{path} has neither {INDEX} nor {SINGLE}{pickled.in_folder(path)}")
        files = [path / SINGLE]
    elif path.is_file():
        files = [path]
    else:
        raise UsageError(f"there is no file or folder {path}")
    tensors, metadata = read_header(files[0])
    return Checkpoint(path, tensors, {files[0].name: list(tensors)}, {files[0].name: metadata})


def _sharded(folder: Path) -> Checkpoint:
    try:
        where = json.loads((folder / INDEX).read_text())["weight_map"]
        shards = sorted(set(where.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / INDEX} is not an index with a weight_map: {error}") from error
    strange = [str(shard) for shard in shards if not isinstance(shard, str) or Path(shard).name != shard]
    if strange:
        raise UsageError(f"{folder / INDEX} names files outside its folder: {', '.join(strange)}")
    found = {shard: read_header(folder / shard) for shard in shards}
    wrong = sorted(name for name, shard in where.items() if name not in found[shard][0])
    wrong += sorted(name for shard, (held, _) in found.items() for name in held if where.get(name) != shard)
    if wrong:
        raise UsageError(f"{folder / INDEX} and its files do not agree on these tensors: {', '.join(wrong)}")
    return Checkpoint(
        folder,
        {name: tensor for held, _ in found.values() for name, tensor in held.items()},
        {shard: list(held) for shard, (held, _) in found.items()},
        {shard: metadata for shard, (_, metadata) in found.items()},
    )


def read_header(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of one file in the order of their bytes, and its metadata.

    Raises:
      UsageError: the file cannot be read, is no safetensors file, is cut short, or has a dtype that is not known here.
    """
    try:
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size = file.stat().st_size
            if size < 8 or not 2 <= length <= min(size - 8, LARGEST_HEADER):
                raise ValueError("it has no header")
            entries: dict[str, Any] = json.loads(opened.read(length))
        metadata = entries.pop("__metadata__", {})
        tensors = {name: _tensor(file, name, entry, 8 + length, size) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is not a whole safetensors file: {pickled.hint(file) or error}") from error
    return dict(sorted(tensors.items(), key=lambda item: item[1].start)), metadata


def _tensor(file: Path, name: str, entry: dict[str, Any], offset: int, size: int) -> Tensor:
    kind, (start, stop) = entry["dtype"], entry["data_offsets"]
    if kind not in DTYPES:
        raise ValueError(f"{name} has the dtype {kind}; known are {', '.join(DTYPES)}")
    tensor = Tensor(file, kind, tuple(entry["shape"]), offset + start)
    if start < 0 or stop - start != tensor.size * tensor.dtype.itemsize:
        raise ValueError(f"{name} of shape {list(tensor.shape)} and dtype {kind} has {stop - start} bytes")
    if offset + stop > size:
        raise ValueError(f"{name} ends at byte {offset + stop} of {size}: the file was cut short")
    return tensor


def differences(checkpoints: list[Checkpoint]) -> list[str]:
    """What keeps checkpoints from being averaged: names, shapes and dtypes that differ from the first's, all of them."""
    first, *others = checkpoints
    found = []
    for other in others:
        for name in sorted({*first.tensors, *other.tensors}):
            one, two = first.tensors.get(name), other.tensors.get(name)
            if one is None or two is None:
                found.append(f"{name} is not in {first.path if one is None else other.path}")
            elif one.shape != two.shape:
                found.append(f"{name} is {list(one.shape)} in {first.path} but {list(two.shape)} in {other.path}")
            elif one.kind != two.kind:
                found.append(f"{name} is {one.kind} in {first.path} but {two.kind} in {other.path}")
    return found


def header(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The first bytes of a file that holds `tensors` in this order; a multiple of 8 long, as the format asks for."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.size * tensor.dtype.itemsize
        entries[name] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

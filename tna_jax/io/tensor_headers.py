"""The headers of safetensors files and of sharded Hugging Face folders: what they hold and where, so that it can be read.

A safetensors file is 8 bytes, the length of a JSON header; the header, which gives each tensor's dtype, shape and place; the
tensors' bytes. A header is checked here, entry by entry, before anything is read: names once each, known types, offsets that
tile the file exactly. Format: https://github.com/huggingface/safetensors#format
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import ml_dtypes
import numpy as np

from tna_jax.io import refused_formats
from tna_jax.io.errors import UsageError

DTYPES = {
    "BOOL": np.dtype(np.bool_), "U8": np.dtype(np.uint8), "I8": np.dtype(np.int8), "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16), "U32": np.dtype(np.uint32), "I32": np.dtype(np.int32), "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64), "C64": np.dtype(np.complex64),
}  # fmt: skip
"""What a file may hold, as NumPy has it (little-endian)."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HEADER_LIMIT = 16 * 2**20
"""Bytes; about 200,000 arrays."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its bytes are `start` to `start + bytes` of the file."""

    file: Path
    kind: str
    """The format's name of its dtype."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""

    @property
    def dtype(self) -> np.dtype:
        """As NumPy has it (little-endian)."""
        dtype: np.dtype = DTYPES[self.kind]
        return dtype

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it can be averaged."""
        return self.kind.startswith(("F", "BF"))

    def read(self) -> np.ndarray:
        """Reads all of it; raises UsageError where the file has changed."""
        try:
            return np.fromfile(self.file, self.dtype, self.size, offset=self.start).reshape(self.shape)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {self.file}: {error}") from error


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
        """Bytes of all tensors."""
        return sum(tensor.size * tensor.dtype.itemsize for tensor in self.tensors.values())


def open_checkpoint(name: str) -> Checkpoint:
    """Reads the headers of a safetensors file, or of a folder with `model.safetensors.index.json` or one `model.safetensors`.

    Raises:
      UsageError: nothing there, no such file, or one that is damaged.
    """
    path = Path(name)
    if path.is_dir():
        layouts = [name for name in (INDEX, SINGLE) if (path / name).is_file()]
        if len(layouts) > 1:
            raise UsageError(
                f"{path} holds two models, {SINGLE} and the shards of {INDEX}; which one is meant, readers decide differently: "
                "remove one of them"
            )
        if layouts == [INDEX]:
            return _sharded(path, INDEX)
        files = [path / SINGLE] if layouts else [_other_name(path)]
        if files[0].name.endswith(".index.json"):
            return _sharded(path, files[0].name)
    elif path.is_file():
        files = [path]
    else:
        raise UsageError(f"there is no file or folder {path}")
    tensors, metadata = read_header(files[0])
    return Checkpoint(path, tensors, {files[0].name: list(tensors)}, {files[0].name: metadata})


OTHER_NAMES = (
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "adapter_model.safetensors",
)
"""Names of the weights of other libraries' folders: diffusers, PEFT."""
SHARD = re.compile(r"-\d+-of-(\d+)\.safetensors$")
"""The end of a shard's name, with their number."""


def _other_name(folder: Path) -> Path:
    """Returns the weights of a folder that has none of the usual names: another library's, or the only safetensors file.

    Raises:
      UsageError: there is none, or several.
    """
    for name in OTHER_NAMES:
        if (folder / name).is_file():
            return folder / name
    only = sorted(file for file in folder.glob("*.safetensors") if file.is_file())
    if shards := [file.name for file in only if (match := SHARD.search(file.name)) and int(match[1]) > 1]:
        raise UsageError(
            f"{folder} holds shards of a model ({', '.join(shards[:3])}{', ...' if len(shards) > 3 else ''}) without their index "
            f"{INDEX}, which says what belongs to it: fetch it, and all shards that it names"
        )
    if len(only) == 1:
        return only[0]
    several = f"; name one of {', '.join(file.name for file in only)}" if only else ""
    raise UsageError(f"{folder} has neither {INDEX} nor {SINGLE}{refused_formats.in_folder(folder)}{several}")


def _sharded(folder: Path, index: str) -> Checkpoint:
    try:
        where = json.loads((folder / index).read_text())["weight_map"]
        shards = sorted(set(where.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder / index} is not an index with a weight_map: {error}") from error
    outside = [str(shard) for shard in shards if not isinstance(shard, str) or Path(shard).name != shard]
    if outside:
        raise UsageError(f"{folder / index} names files outside its folder: {', '.join(outside)}")
    headers = {shard: read_header(folder / shard) for shard in shards}
    wrong = sorted(name for name, shard in where.items() if name not in headers[shard][0])
    wrong += sorted(name for shard, (held, _) in headers.items() for name in held if where.get(name) != shard)
    if wrong:
        raise UsageError(f"{folder / index} and its files do not agree on these tensors: {', '.join(wrong)}")
    return Checkpoint(
        folder,
        {name: tensor for held, _ in headers.values() for name, tensor in held.items()},
        {shard: list(held) for shard, (held, _) in headers.items()},
        {shard: metadata for shard, (_, metadata) in headers.items()},
    )


def read_header(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads which tensors a file holds, in the order of their bytes, and its metadata.

    Raises:
      UsageError: it cannot be read or is not a sound safetensors file; the message says what is wrong.
    """
    try:
        with open(file, "rb") as opened:
            tensors, metadata = _header(file, opened, file.stat().st_size)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not a sound safetensors file: {refused_formats.hint(file) or error}") from error
    return dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size))), metadata


def _header(file: Path, opened: BinaryIO, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the metadata; raises ValueError for whatever is not as the format says."""
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
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata must be text by name")
    tensors, spans = {}, []
    for name, entry in header.items():
        kind, shape, begin, end = _entry(name, entry)
        tensors[name] = Tensor(file, kind, shape, 8 + length + begin)
        spans.append((begin, end, name))
    place = 0
    for begin, end, name in sorted(spans):
        if begin != place:
            raise ValueError(f"{name!r} begins at byte {begin} of the data, where {place} was expected")
        place = end
    if place != size - 8 - length:
        raise ValueError(f"its arrays take {place} bytes, the file holds {size - 8 - length}")
    return tensors, metadata


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)], **rest} if not rest:
            pass
        case _:
            raise ValueError(f"{name!r} must have dtype, shape, data_offsets and nothing else")
    if kind not in DTYPES:
        raise ValueError(f"{name!r} has the type {kind[:20]!r}; known: {', '.join(DTYPES)}")
    if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise ValueError(f"{name!r} has an impossible shape")
    takes = math.prod(shape) * DTYPES[kind].itemsize
    if not 0 <= begin <= end or end - begin != takes:
        raise ValueError(f"{name!r} has {end - begin} bytes of data, {kind} {shape} takes {takes}")
    return kind, tuple(shape), begin, end


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        twice = sorted({name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1})[:5]
        raise ValueError(f"named more than once: {', '.join(map(repr, twice))}")
    return entries


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is not a number of the format")


class Described(Protocol):
    """What a header says of a tensor."""

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def size(self) -> int: ...


def header(tensors: Mapping[str, Described], metadata: dict[str, str]) -> bytes:
    """Returns the first bytes of a file that holds `tensors` in this order; a multiple of 8 long, as the format asks for."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.size * tensor.dtype.itemsize
        entries[name] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

"""One example as a record, and many of one layout at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError


class Kinds(NamedTuple):
    """Type and shape of x and of y."""

    x: tuple[np.dtype[Any], tuple[int, ...]]
    y: tuple[np.dtype[Any], tuple[int, ...]]


def kinds_of(x: np.ndarray, y: np.ndarray) -> Kinds:
    """Returns the dtypes and shapes of an example."""
    return Kinds((x.dtype, x.shape), (y.dtype, y.shape))


def number_kinds(kinds: Kinds, what: str) -> Kinds:
    """The kinds, if they are of numbers; else UsageError."""
    for name, (dtype, _) in zip("xy", kinds, strict=True):
        if dtype.kind not in "biuf":
            raise UsageError(f"{what}: {name} holds {dtype}, expected numbers")
    return kinds


def described(kinds: Kinds) -> str:
    """Returns dtypes and shapes in words, for a message."""
    return ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in zip("xy", kinds, strict=True))


def encode(x: np.ndarray, y: np.ndarray) -> bytes:
    """Returns an example as the bytes of a record."""
    from flax.serialization import msgpack_serialize

    return msgpack_serialize({"x": x, "y": y})


def decode(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the x and y of a record; ValueError for what is none."""
    from flax.serialization import msgpack_restore

    try:
        value = msgpack_restore(record)
    except Exception as error:  # whatever msgpack raises of bytes that it did not write
        raise ValueError(f"is no MessagePack of flax.serialization ({type(error).__name__}: {error})") from error
    if not isinstance(value, dict) or set(value) != {"x", "y"}:
        holds = f"a mapping of {', '.join(map(str, value))}" if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"holds {holds}, expected a mapping of x and y")
    if odd := [name for name in "xy" if not isinstance(value[name], np.ndarray | np.generic | int | float)]:
        raise ValueError(f"{odd[0]} is {type(value[odd[0]]).__name__}, expected an array of numbers")
    x, y = np.asarray(value["x"]), np.asarray(value["y"])
    if odd := [f"{name} holds {array.dtype}" for name, array in (("x", x), ("y", y)) if array.dtype.kind not in "biuf"]:
        raise ValueError(f"{odd[0]}, expected numbers")
    return x, y


class Layout:
    """Where x and y lie in the bytes of a record: records of one kind differ nowhere else, so that many are decoded at once."""

    def __init__(self, kinds: Kinds) -> None:
        empty, full = (np.frombuffer(encode(*(_filled(kind, value) for kind in kinds)), np.uint8) for value in (0, 255))
        self.kinds, self.fixed, self.header = kinds, np.flatnonzero(empty == full), empty[empty == full]
        self.template = empty
        self.size, places = len(empty), np.flatnonzero(empty != full)
        x_bytes, y_bytes = (int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for dtype, shape in kinds)
        self.x = slice(int(places[0]), int(places[0]) + x_bytes) if x_bytes else slice(0)
        self.y = slice(int(places[-1]) + 1 - y_bytes, int(places[-1]) + 1) if y_bytes else slice(0)

    def encode(self, x: np.ndarray, y: np.ndarray) -> bytes:
        """Returns the record of an example of this kind."""
        record = self.template.copy()
        record[self.x] = np.frombuffer(x.tobytes(), np.uint8)
        record[self.y] = np.frombuffer(y.tobytes(), np.uint8)
        return record.tobytes()

    def decode(self, records: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns x (B, ...) and y (B, ...); None if any record is of another kind."""
        if any(len(record) != self.size for record in records):
            return None
        table = np.frombuffer(b"".join(records), np.uint8).reshape(len(records), self.size)
        if (table[:, self.fixed] != self.header).any():
            return None
        return _array(table[:, self.x], self.kinds.x), _array(table[:, self.y], self.kinds.y)


def _filled(kind: tuple[np.dtype[Any], tuple[int, ...]], value: int) -> np.ndarray:
    dtype, shape = kind
    data = np.full(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, value, np.uint8)
    return data.view(dtype).reshape(shape)


def _array(columns: np.ndarray, kind: tuple[np.dtype[Any], tuple[int, ...]]) -> np.ndarray:
    dtype, shape = kind
    return np.ascontiguousarray(columns).reshape(-1).view(dtype).reshape(len(columns), *shape)

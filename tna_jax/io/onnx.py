"""The arrays that an ONNX file holds, and which nodes take them: the wire format of protobuf as far as that needs. Nothing is executed.

A message is a sequence of fields: a number (field << 3 | type), then a varint, 8 or 4 bytes, or a length and so many bytes. Format:
https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

from tna_jax.io.errors import UsageError

FLOATS = {1: np.dtype(np.float32), 10: np.dtype(np.float16), 11: np.dtype(np.float64), 16: np.dtype(ml_dtypes.bfloat16)}
"""By ONNX's number of a type: those of weights. Arrays of others (shapes, indices) are left out."""
GRAPH = 7
NODE, INITIALIZER = 1, 5
INPUT, OUTPUT, OPERATOR = 1, 2, 4
DIMENSIONS, TYPE, FLOAT_DATA, NAME, RAW, EXTERNAL, LOCATION = 1, 2, 4, 8, 9, 13, 14
"""Numbers of the fields of a model, a graph, a node and a tensor."""
MOST_AXES = 16


class Node(NamedTuple):
    """An operation of the graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a file holds.

    Attributes:
      nodes: its operations, in order.
      arrays: its arrays of floats, by name (views of the file's bytes).
    """

    nodes: tuple[Node, ...]
    arrays: dict[str, np.ndarray]


def parse(data: bytes, where: str) -> Graph:
    """Parses an ONNX model.

    Args:
      data: the file's bytes.
      where: its name, for messages.

    Raises:
      UsageError: it is not an ONNX model, is cut off, contradicts itself, or keeps arrays in other files.
    """
    try:
        graphs = [value for field, value in _fields(memoryview(data)) if field == GRAPH]
        if len(graphs) != 1:
            raise _Damaged(f"{len(graphs)} graphs instead of one")
        nodes, arrays = [], {}
        for field, value in _fields(_message(graphs[0])):
            if field == NODE:
                nodes.append(_node(_message(value)))
            elif field == INITIALIZER:
                name, array = _tensor(_message(value))
                if name in arrays:
                    raise _Damaged(f"two arrays are called {name!r}")
                if array is not None:
                    arrays[name] = array
    except _Damaged as error:
        raise UsageError(f"{where} is not an ONNX model that can be read: {error}") from error
    return Graph(tuple(nodes), arrays)


class _Damaged(Exception):
    pass


def _node(message: memoryview) -> Node:
    texts: dict[int, list[str]] = {INPUT: [], OUTPUT: [], OPERATOR: []}
    for field, value in _fields(message):
        if field in texts:
            texts[field].append(_text(value))
    return Node("".join(texts[OPERATOR][-1:]), tuple(texts[INPUT]), tuple(texts[OUTPUT]))


def _tensor(message: memoryview) -> tuple[str, np.ndarray | None]:
    """The name and the array of an initializer; None for one of whole numbers or texts."""
    shape: list[int] = []
    name, kind, data = "", 0, None
    for field, value in _fields(message):
        if field == DIMENSIONS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif field == TYPE:
            kind = _number(value)
        elif field == NAME:
            name = _text(value)
        elif field == RAW or (field == FLOAT_DATA and not isinstance(value, int)):
            data = _message(value)
        elif field == EXTERNAL or (field == LOCATION and value):
            raise _Damaged("its arrays are in other files")
    if kind not in FLOATS:
        return name, None
    if len(shape) > MOST_AXES or any(side >= 2**31 for side in shape):
        raise _Damaged(f"array {name!r} has the shape {shape[:MOST_AXES]}")
    if data is None or len(data) != math.prod(shape) * FLOATS[kind].itemsize:
        held = 0 if data is None else len(data)
        raise _Damaged(f"array {name!r} of shape {shape} and type {FLOATS[kind]} has {held} bytes")
    return name, np.frombuffer(data, FLOATS[kind]).reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: its number, and a whole number or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield field, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _Damaged(f"a field of the unknown type {kind}")
        if at + size > len(message):
            raise _Damaged("it is cut off")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number of at most 64 bits, 7 in each byte, and where it ends."""
    value = 0
    for i in range(10):
        if at + i >= len(message):
            raise _Damaged("it is cut off")
        byte = message[at + i]
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, at + i + 1
    raise _Damaged("a number of more than 64 bits")


def _varints(value: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
        if len(numbers) > MOST_AXES:
            raise _Damaged(f"an array of more than {MOST_AXES} axes")
    return numbers


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged("a number where a message is expected")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise _Damaged("bytes where a number is expected")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise _Damaged("a name that is no text") from error

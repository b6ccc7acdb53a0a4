"""The arrays and nodes of ONNX files, written here by hand: whatever is wrong with a file is said in a line."""

import numpy as np
import pytest

from tna_jax.io import onnx
from tna_jax.io.errors import UsageError


def varint(value):
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, kind=1, raw=onnx.RAW):
    return (
        b"".join(field(1, side) for side in array.shape) + field(2, kind) + field(8, name) + field(raw, array.tobytes())
    )


def node(operator, inputs, outputs):
    return b"".join([*(field(1, name) for name in inputs), *(field(2, name) for name in outputs), field(4, operator)])


def model(*tensors, nodes=()):
    graph = b"".join([*(field(1, part) for part in nodes), *(field(5, part) for part in tensors)])
    return field(1, 8) + field(2, "someone") + field(7, graph)


ONES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arrays_and_nodes_are_read():
    half = tensor("half", ONES.astype(np.float16), 10)
    packed = field(1, varint(2) + varint(3)) + field(2, 1) + field(4, ONES.tobytes()) + field(8, "packed")
    shape = tensor("shape", np.array([1, -1]), 7)
    made = model(
        tensor("w", ONES), half, packed, shape, tensor("scalar", np.float32(3)), nodes=[node("Add", ["w", "x"], ["y"])]
    )
    graph = onnx.parse(made, "file")
    assert graph.nodes == (onnx.Node("Add", ("w", "x"), ("y",)),)
    assert set(graph.arrays) == {"w", "half", "packed", "scalar"}  # whole numbers are no weights
    for name in ("w", "half", "packed"):
        np.testing.assert_array_equal(graph.arrays[name], ONES.astype(graph.arrays[name].dtype))
    assert graph.arrays["half"].dtype == np.float16 and graph.arrays["scalar"].shape == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 graphs instead of one"),
        (b"PK\x03\x04 a zip, or whatever", "cut off|unknown type|0 graphs"),
        (model(tensor("w", ONES))[:-3], "cut off"),
        (b"\xff" * 11, "more than 64 bits"),
        (b"\x3b", "unknown type 3"),
        (field(7, 5), "a number where a message is expected"),
        (model(tensor("w", ONES), tensor("w", ONES)), "two arrays are called 'w'"),
        (model(field(1, 3) + tensor("w", ONES)), r"of shape \[3, 2, 3\] and type float32 has 24 bytes"),
        (model(field(1, 2**40) + tensor("w", ONES)), "has the shape"),
        (model(field(1, b"\x01" * 99) + tensor("w", ONES)), "more than 16 axes"),
        (model(field(1, 2) + field(2, 1) + field(8, "w")), "has 0 bytes"),
        (model(tensor("w", ONES) + field(13, field(1, "location") + field(2, "/etc/passwd"))), "in other files"),
        (model(tensor("w", ONES) + field(14, 1)), "in other files"),
        (model(field(8, b"\xff\xfe") + field(2, 1)), "a name that is no text"),
        (model(field(2, b"abc")), "bytes where a number is expected"),
        (model() + model(), "2 graphs"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_line(data, message):
    with pytest.raises(UsageError, match=message) as error:
        onnx.parse(data, "file.onnx")
    assert str(error.value).startswith("file.onnx is not an ONNX model that can be read: ") and "\n" not in str(
        error.value
    )


def test_no_damage_is_more_than_a_line():
    """Every byte of a model changed or left out, and noise: read, or refused; never another error."""
    good = model(tensor("w", ONES), nodes=[node("MatMul", ["x", "w"], ["y"])])
    draws = np.random.default_rng(0)
    damaged = [good[:i] + bytes([good[i] ^ bits]) + good[i + 1 :] for i in range(len(good)) for bits in (1, 128, 255)]
    damaged += [good[:i] for i in range(len(good))] + [draws.bytes(50) for _ in range(300)]
    for data in damaged:
        try:
            onnx.parse(data, "file")
        except UsageError:
            pass

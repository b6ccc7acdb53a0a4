"""Examples in ArrayRecord files: what is written is what is read, in any order; what is damaged or does not fit is named."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("grain")

from flax.serialization import msgpack_serialize

from tna_jax.io import Records, UsageError, write_records
from tna_jax.streaming import Stream


def arrays(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3, 2)).astype(np.float32), rng.integers(-2, 5, count).astype(np.int16)


def written(folder, x, y, **options):
    write_records(folder, zip(x, y, strict=True), **options)
    return Records(folder)


def raw(folder, *records):
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def test_what_is_written_is_read_in_any_order_over_several_files(tmp_path):
    x, y = arrays()
    records = written(tmp_path / "train", x, y, file_bytes=400)
    assert len(records.files) > 3 and len(records) == 40 and isinstance(records, Stream)
    rows = np.random.default_rng(1).permutation(40).reshape(4, 10)
    for row, (a, b) in zip(rows, records.batches(rows), strict=True):
        np.testing.assert_array_equal(a, x[row])
        np.testing.assert_array_equal(b, y[row])
        assert (a.dtype, b.dtype) == (x.dtype, y.dtype)
    part = records.select(np.array([7, 3])).select(np.array([1]))
    np.testing.assert_array_equal(part[0][0], x[3])
    assert json.loads((tmp_path / "train" / "records.json").read_text())["targets"] == [int(y.min()), int(y.max())]


def test_a_record_is_the_messagepack_of_flax(tmp_path):
    x, y = arrays(3)
    raw(tmp_path / "a", *(msgpack_serialize({"x": x[i], "y": y[i]}) for i in range(3)))
    raw(
        tmp_path / "b", *(msgpack_serialize({"y": int(y[i]), "x": x[i]}) for i in range(3))
    )  # another order, plain numbers
    for name in "ab":
        a, b = Records(tmp_path / name).read(np.arange(3))
        np.testing.assert_array_equal(a, x)
        np.testing.assert_array_equal(b, y)


def test_the_fingerprint_is_of_the_content(tmp_path):
    x, y = arrays()
    first, same, other = (written(tmp_path / name, x, y + (name == "c")) for name in "abc")
    assert first.fingerprint() == same.fingerprint() != other.fingerprint()


def test_reading_that_is_given_up_leaves_nothing_behind(tmp_path):
    records = written(tmp_path / "a", *arrays())
    batches = records.batches(np.arange(40).reshape(10, 4))
    next(batches)
    batches.close()


@pytest.mark.parametrize(
    ("record", "words"),
    [(b"junk", "record 1 is no MessagePack"), (msgpack_serialize({"x": np.zeros(2)}), "holds a mapping of x, expected a mapping of x and y"),
     (msgpack_serialize({"x": np.zeros(2), "y": "cat"}), "y is str, expected an array of numbers"),
     (msgpack_serialize({"x": np.zeros(3), "y": 1}), r"record 1 is x float64 \(3,\), y int64 \(\), the first record is x float64 \(2,\)")],
)  # fmt: skip
def test_a_bad_record_is_named_when_it_is_read(tmp_path, record, words):
    raw(tmp_path / "a", msgpack_serialize({"x": np.zeros(2), "y": 1}), record)
    records = Records(tmp_path / "a")
    with pytest.raises(UsageError, match=words) as error:
        list(records.batches([np.array([0, 1])]))
    assert "a.array_record: record 1" in str(error.value)


def test_bad_files_are_named_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="holds no records"):
        Records(tmp_path)
    (tmp_path / "bad.array_record").write_bytes(b"junk" * 100)
    with pytest.raises(UsageError, match=r"bad.array_record is no ArrayRecord file, or damaged"):
        Records(tmp_path)
    x, y = arrays()
    records = written(tmp_path / "a", x, y, file_bytes=400)
    records.files[1].unlink()
    with pytest.raises(UsageError, match=r"records.json says 40: files are missing"):
        Records(tmp_path / "a")


def test_bytes_that_changed_are_named(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3000))
    file = written(tmp_path / "a", x, np.arange(50)).files[0]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UsageError, match=r"part-00000.array_record: record \d+ cannot be read"):
        list(Records(tmp_path / "a").batches([np.arange(50)]))


def test_without_grain_one_line_says_what_to_install(tmp_path, monkeypatch):
    written(tmp_path / "a", *arrays(3))
    monkeypatch.setitem(sys.modules, "grain", None)
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    for use in (lambda: Records(tmp_path / "a"), lambda: write_records(tmp_path / "b", [])):
        with pytest.raises(UsageError, match=r"pip install 'tna-jax\[stream\]'"):
            use()


def test_examples_that_do_not_go_together_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UsageError, match=r"example 1 is x float64 \(3,\), y int64 \(\), the first is x float64 \(2,\)"):
        write_records(tmp_path / "a", [(np.zeros(2), 1), (np.zeros(3), 1)])
    with pytest.raises(UsageError, match="no examples"):
        write_records(tmp_path / "a", [])
    with pytest.raises(UsageError, match="y holds <U3, expected numbers"):
        write_records(tmp_path / "a", [(np.zeros(2), "cat")])
    assert not list((tmp_path / "a").iterdir())
    written(tmp_path / "a", *arrays(3))
    with pytest.raises(UsageError, match="holds records already"):
        write_records(tmp_path / "a", [(np.zeros(2), 1)])

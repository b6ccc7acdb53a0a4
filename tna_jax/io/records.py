"""Examples in ArrayRecord files, for data larger than memory: written one by one, read by number, streamed through Grain.

A folder holds `*.array_record` files, in the order of their names. A record is one example, `{"x": array, "y": array}` in MessagePack as
`flax.serialization.msgpack_serialize` writes it: arrays with their type and shape, never Python objects. All examples of a folder
have one type and shape.

    write_records("mine/train", ((x, y) for x, y in examples))
    records = Records("mine/train")
    records[7]                                         # (x, y)
    for x, y in records.batches(rows): ...             # rows (S, B) of numbers: (B, ...) each, read ahead in threads

`Records` is a stream, as `tna_jax.streaming` trains on it and `tna_jax.evaluate_path` measures on it. Needs Grain: `pip install 'tna-jax[stream]'`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json

ABOUT, SUFFIX, FORMAT = "records.json", ".array_record", 1
FILE_BYTES = 2**28
"""Of one file, about."""
SAMPLED = 16
"""Records of a file that its fingerprint is made of."""
INSTALL = "records need Grain: pip install 'tna-jax[stream]'"


class About(NamedTuple):
    """What `records.json` says of a folder."""

    examples: int
    targets: tuple[int, int] | None
    """The smallest and the largest integer target; None for other targets."""
    sha256: str
    """Of all records."""


def write_records(
    folder: str | os.PathLike[str], examples: Iterable[tuple[Any, Any]], *, file_bytes: int = FILE_BYTES
) -> int:
    """Writes examples into a new folder and returns their number; nothing is kept in memory.

    Beside the files it writes `records.json`: the number of examples, the range of integer targets, and a SHA-256 of all records.

    Args:
      folder: is made; must hold no records yet.
      examples: (x, y) each, arrays or numbers; all of one type and shape.
      file_bytes: where the next file begins.

    Raises:
      UsageError: Grain is missing, the folder has records, or an example is of another type or shape than the first.
    """
    folder = Path(folder)
    with _Files(folder, file_bytes) as files:
        for x, y in examples:
            files.add(np.asarray(x), np.asarray(y))
    return files.count


class _Files:
    """Files of records in the making: they get their names when all are whole."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        try:
            from array_record.python.array_record_module import ArrayRecordWriter
        except ImportError as error:
            raise UsageError(INSTALL) from error
        folder.mkdir(parents=True, exist_ok=True)
        if _files(folder):
            raise UsageError(f"{folder} holds records already: name a new folder")
        self.open, self.folder, self.file_bytes = ArrayRecordWriter, folder, file_bytes
        self.layout: _Layout | None = None
        self.writer: Any = None
        self.paths: list[Path] = []
        self.count = self.size = 0
        self.digest, self.low, self.high = hashlib.sha256(), 0, 0

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writer is not None:
            self.writer.close()
        if kind is not None:
            for path in self.paths:
                _unfinished(path).unlink(missing_ok=True)
            return
        if self.layout is None:
            raise UsageError(f"{self.folder}: no examples")
        for path in self.paths:
            _unfinished(path).rename(path)
        targets = [self.low, self.high] if self.layout.kinds.y[0].kind in "biu" else None
        about = {"format": FORMAT, "examples": self.count, "targets": targets, "sha256": self.digest.hexdigest()}
        write_json(self.folder / ABOUT, about)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Writes one example."""
        kinds = Kinds((x.dtype, x.shape), (y.dtype, y.shape))
        if self.layout is None:
            self.layout = _Layout(_numbers(kinds, f"{self.folder}: example 0"))
        if kinds != self.layout.kinds:
            first = f"the first is {_described(self.layout.kinds)}"
            raise UsageError(f"{self.folder}: example {self.count} is {_described(kinds)}, {first}")
        record = self.layout.encode(x, y)
        if self.writer is None or self.size >= self.file_bytes:
            if self.writer is not None:
                self.writer.close()
            self.paths.append(self.folder / f"part-{len(self.paths):05d}{SUFFIX}")
            self.writer, self.size = self.open(str(_unfinished(self.paths[-1])), "group_size:1,uncompressed"), 0
        self.writer.write(record)
        self.digest.update(record)
        self.size += len(record)
        if y.dtype.kind in "biu" and y.size:
            low, high = int(y.min()), int(y.max())
            self.low, self.high = (min(self.low, low), max(self.high, high)) if self.count else (low, high)
        self.count += 1


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


class Kinds(NamedTuple):
    """Type and shape of x and of y."""

    x: tuple[np.dtype[Any], tuple[int, ...]]
    y: tuple[np.dtype[Any], tuple[int, ...]]


def _kinds(x: np.ndarray, y: np.ndarray) -> Kinds:
    return Kinds((x.dtype, x.shape), (y.dtype, y.shape))


def _numbers(kinds: Kinds, what: str) -> Kinds:
    """The kinds, if they are of numbers; else UsageError."""
    for name, (dtype, _) in zip("xy", kinds, strict=True):
        if dtype.kind not in "biuf":
            raise UsageError(f"{what}: {name} holds {dtype}, expected numbers")
    return kinds


def _described(kinds: Kinds) -> str:
    return ", ".join(f"{name} {dtype} {shape}" for name, (dtype, shape) in zip("xy", kinds, strict=True))


def _encode(x: np.ndarray, y: np.ndarray) -> bytes:
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


class _Layout:
    """Where x and y lie in the bytes of a record: records of one kind differ nowhere else, so that many are decoded at once."""

    def __init__(self, kinds: Kinds) -> None:
        empty, full = (
            np.frombuffer(_encode(*(_filled(kind, value) for kind in kinds)), np.uint8) for value in (0, 255)
        )
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


class Records:
    """The examples of a folder, or of some of its rows, by number. What it holds in memory is the numbers alone."""

    def __init__(self, folder: str | os.PathLike[str], rows: np.ndarray | None = None) -> None:
        """Opens the files; reads one example of each.

        Args:
          folder: with `*.array_record` files.
          rows: (N,) numbers of the examples, if not all.

        Raises:
          UsageError: Grain is missing; there are no files, or one that is damaged, empty or of another kind; one is gone.
        """
        self.folder, self.rows = Path(folder), rows
        self.files = _files(self.folder)
        if not self.files:
            raise UsageError(f"{self.folder} holds no records (files called *{SUFFIX})")
        self._source = _Source(self.files)
        self._ends = self._source.ends
        self.about = _about(self.folder, self._ends[-1])
        self.kinds = _kinds(*self._decoded(0))
        for first in [0, *self._ends[:-1]]:
            self._require(*self._decoded(first), first)
        self._layout = _Layout(self.kinds)

    def select(self, rows: np.ndarray) -> "Records":
        """Returns the examples at these numbers, (N,), in their order."""
        chosen = object.__new__(Records)
        chosen.__dict__.update(self.__dict__)
        chosen.rows = np.asarray(rows) if self.rows is None else self.rows[rows]
        return chosen

    @property
    def example_bytes(self) -> int:
        """Of one example, as it is read."""
        return self._layout.size

    def __len__(self) -> int:
        return self._ends[-1] if self.rows is None else len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = self.read(np.array([number]))
        return x[0], y[0]

    def read(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads x (B, ...) and y (B, ...) of the examples at `numbers`, (B,).

        Raises:
          UsageError: a record that is damaged, or of another type or shape; names its file and its number there.
        """
        places = np.asarray(numbers) if self.rows is None else self.rows[numbers]
        try:
            records = self._source.read(places)
        except RuntimeError as error:
            raise UsageError(self._damaged(places, error)) from error
        decoded = self._layout.decode(records)
        if decoded is not None:
            return decoded
        examples = [self._decoded(int(place), record) for place, record in zip(places, records, strict=True)]
        for place, (x, y) in zip(places, examples, strict=True):
            self._require(x, y, int(place))
        xs, ys = zip(*examples, strict=True)
        return np.stack(xs), np.stack(ys)

    def batches(
        self, rows: Sequence[np.ndarray], threads: int = 2, ahead: int = 8
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Reads the examples of every row, one after the other, `ahead` of them in advance.

        Args:
          rows: numbers (B,) each, or an array (S, B).
          threads: that read.
          ahead: batches held in memory.
        """
        import grain

        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
        dataset = grain.MapDataset.source(_Batches(self, rows)).to_iter_dataset(options)
        iterator = iter(dataset)
        try:
            yield from iterator
        finally:
            iterator.close()

    def fingerprint(self) -> str:
        """Computes a SHA-256 of the names and sizes of the files, some records of each, and the hash that was written beside them."""
        state = hashlib.sha256((self.about.sha256 if self.about else "").encode())
        for file, first, last in zip(self.files, [0, *self._ends], self._ends, strict=False):
            state.update(f"{file.name} {file.stat().st_size} {last - first}\n".encode())
            for place in np.unique(np.linspace(first, last - 1, SAMPLED).astype(np.int64)):
                state.update(self._source.read(np.array([place]))[0])
        return state.hexdigest()

    def where(self, number: int) -> str:
        """Returns the file of an example and its number there, for messages."""
        return self._where(number if self.rows is None else int(self.rows[number]))

    def _where(self, place: int) -> str:
        index = int(np.searchsorted(self._ends, place, side="right"))
        return f"{self.files[index]}: record {place - ([0, *self._ends][index])}"

    def _decoded(self, place: int, record: bytes | None = None) -> tuple[np.ndarray, np.ndarray]:
        try:
            return decode(self._source.read(np.array([place]))[0] if record is None else record)
        except ValueError as error:
            raise UsageError(f"{self._where(place)} {error}") from error
        except RuntimeError as error:
            raise UsageError(self._damaged(np.array([place]), error)) from error

    def _require(self, x: np.ndarray, y: np.ndarray, place: int) -> None:
        kinds = _kinds(x, y)
        if kinds != self.kinds:
            raise UsageError(
                f"{self._where(place)} is {_described(kinds)}, the first record is {_described(self.kinds)}"
            )

    def _damaged(self, places: np.ndarray, error: Exception) -> str:
        for place in places:
            try:
                self._source.read(np.array([place]))
            except RuntimeError as exact:
                return f"{self._where(int(place))} cannot be read ({_line(exact)})"
        return f"{self.folder} cannot be read ({_line(error)})"


class _Batches:
    """What Grain reads by number: the batch of every row."""

    def __init__(self, records: Records, rows: Sequence[np.ndarray]) -> None:
        self.records, self.rows = records, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.records.read(self.rows[number])


def _files(folder: Path) -> list[Path]:
    """The files of records in a folder, by name; also those that TensorFlow Datasets calls `NAME.array_record-00000-of-00001`."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SUFFIX in path.name and not path.name.startswith("."))


def has_records(folder: Path) -> bool:
    """Returns whether a folder holds files of records."""
    return bool(_files(folder))


class _Source:
    """The bytes of records by number, over several files."""

    def __init__(self, files: list[Path]) -> None:
        try:
            import grain  # noqa: F401
            from array_record.python.array_record_module import ArrayRecordReader
        except ImportError as error:
            raise UsageError(INSTALL) from error
        self.readers, ends = [], [0]
        for file in files:
            try:
                # Without reading ahead: what comes next is drawn, and every file would keep 16 MB.
                reader = ArrayRecordReader(str(file), options="readahead_buffer_size:0", file_reader_buffer_size=2**15)
                count = reader.num_records()
                if not count:
                    reader.close()  # says what is wrong with a file that is none
            except (RuntimeError, ValueError) as error:
                raise UsageError(f"{file} is no ArrayRecord file, or damaged ({_line(error)})") from error
            if not count:
                raise UsageError(f"{file} has no records")
            self.readers.append(reader)
            ends.append(ends[-1] + count)
        self.ends, self.starts = ends[1:], np.array(ends[:-1])

    def read(self, places: np.ndarray) -> list[bytes]:
        """Reads the records at `places`, in their order; RuntimeError where one is damaged."""
        files = np.searchsorted(self.ends, places, side="right")
        records: list[bytes] = [b""] * len(places)
        for file in np.unique(files):
            here = np.flatnonzero(files == file)
            read = self.readers[file].read((places[here] - self.starts[file]).tolist())
            for number, record in zip(here.tolist(), read, strict=True):
                records[number] = record
        return records


def _about(folder: Path, examples: int) -> About | None:
    file = folder / ABOUT
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_bytes())
        targets = value["targets"]
        about = About(
            int(value["examples"]),
            None if targets is None else (int(targets[0]), int(targets[1])),
            str(value["sha256"]),
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UsageError(
            f"{file} is not what write_records writes ({type(error).__name__}: {error}); remove it to do without"
        ) from error
    if about.examples != examples:
        raise UsageError(
            f"{folder} holds {examples} records, {file.name} says {about.examples}: files are missing, or there are others"
        )
    return about


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]

"""Examples read by number from a folder of records."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.records.encoding import Layout, decode, described, kinds_of
from tna_jax.io.records.files import SUFFIX, Source, in_a_line, read_about, record_files

SAMPLED = 16
"""Records of a file that its fingerprint is made of."""


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
        self.files = record_files(self.folder)
        if not self.files:
            raise UsageError(f"{self.folder} holds no records (files called *{SUFFIX})")
        self._source = Source(self.files)
        self._ends = self._source.ends
        self.about = read_about(self.folder, self._ends[-1])
        self.kinds = kinds_of(*self._decoded(0))
        for first in [0, *self._ends[:-1]]:
            self._require(*self._decoded(first), first)
        self._layout = Layout(self.kinds)

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
        kinds = kinds_of(x, y)
        if kinds != self.kinds:
            raise UsageError(f"{self._where(place)} is {described(kinds)}, the first record is {described(self.kinds)}")

    def _damaged(self, places: np.ndarray, error: Exception) -> str:
        for place in places:
            try:
                self._source.read(np.array([place]))
            except RuntimeError as exact:
                return f"{self._where(int(place))} cannot be read ({in_a_line(exact)})"
        return f"{self.folder} cannot be read ({in_a_line(error)})"


class _Batches:
    """What Grain reads by number: the batch of every row."""

    def __init__(self, records: Records, rows: Sequence[np.ndarray]) -> None:
        self.records, self.rows = records, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return self.records.read(self.rows[number])

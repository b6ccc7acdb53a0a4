"""Data larger than memory: `records:FOLDER`, examples in ArrayRecord files (see `tna_jax.io.records`), read while they are trained on.

The folder holds `train/` and `test/` (or `val/`), or files at once, of which a seeded fifth is the test split. What would be checked of
arrays in memory before the training is checked here of what is written beside the files, and of every batch when it is read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.records import Records, has_records
from tna_jax.programs.data import arrays
from tna_jax.programs.data.source import SUBSET_SEED, DataError, Dataset, Split, permutation
from tna_jax.programs.user_code import is_reference

TESTS = ("test", "val", "validation")
HEAD = 256
"""Examples that are looked at before the training."""
SCANNED = 4096
"""Records read at once where all have to be."""
Array = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Examples on the disk, as a network takes them: a stream (`tna_jax.streaming`) with the fields of a `Split`."""

    records: Records
    name: str
    """Of the split, for errors: `train` or `test`."""
    objective: str
    limits: tuple[int, int] | None
    """The smallest and the largest target that there may be; None for targets that are no integers."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def images(self) -> "Column":
        """The inputs, (N, ...)."""
        return Column(self, 0)

    @property
    def labels(self) -> "Column":
        """The targets, (N, ...)."""
        return Column(self, 1)

    def batches(self, rows: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
        """Reads the examples of every row in turn; UsageError for one that is not what it should be, by its file and number."""
        for row, (x, y) in zip(rows, self.records.batches(rows), strict=True):
            yield self._prepared(row, x, y)

    def read(self, numbers: Array) -> tuple[Array, Array]:
        """Reads inputs (B, ...) and targets (B, ...)."""
        return self._prepared(numbers, *self.records.read(numbers))

    def select(self, rows: Array) -> "StreamedSplit":
        """Returns the examples at `rows`, (N,), in their order."""
        return dataclasses.replace(self, records=self.records.select(rows))

    def range(self, ignore: int | None = None) -> tuple[int, int]:
        """Returns the smallest and the largest target that counts, as far as it is known."""
        low, high = self.limits or (0, 0)
        return (0 if low == ignore else low), high

    def head(self, count: int = HEAD) -> Split:
        """Returns the first examples, in memory."""
        return Split(*self.read(np.arange(min(count, len(self)))))

    def _prepared(self, numbers: Array, x: Array, y: Array) -> tuple[Array, Array]:
        try:
            return self._converted(x, y, self.records.folder.name)
        except DataError as error:
            for i, number in enumerate(numbers):
                place = self.records.where(int(number))
                try:
                    self._converted(x[i : i + 1], y[i : i + 1], place)
                except DataError as exact:
                    raise UsageError(str(exact)) from error
            raise UsageError(str(error)) from error

    def _converted(self, x: Array, y: Array, place: str) -> tuple[Array, Array]:
        arrays.check_finite(place, "x", x)
        arrays.check_finite(place, "y", y)
        if x.dtype == np.uint8 and x.ndim in (3, 4):
            x = x[..., None] if x.ndim == 3 else x
        else:
            x = arrays.numbers(place, "x", x)
        if self.limits is None or not _indices(self.objective):
            return x, arrays.numbers(place, "y", y.astype(np.float64))
        low, high = self.limits
        if y.size and not low <= int(y.min()) <= int(y.max()) <= high:
            span = f"{y.min()}" if y.min() == y.max() else f"from {y.min()} to {y.max()}"
            raise DataError(f"{place}: y is {span}, expected {low} to {high}")
        y = y[:, 0] if self.objective in arrays.CLASSES and y.shape[1:] == (1,) else y
        return x, arrays.numbers(place, "y", y)


class Column:
    """Inputs or targets of a split, read where they are asked for: shape and type as of an array, parts by index, never all at once."""

    def __init__(self, split: StreamedSplit, number: int) -> None:
        self.split, self.number = split, number
        first = split.head(1)[number]
        self.shape, self.dtype, self.ndim = (len(split), *first.shape[1:]), first.dtype, first.ndim

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, slice):
            return self.split.read(np.arange(len(self))[key])[self.number]
        numbers = np.asarray(key)
        values = self.split.read(np.atleast_1d(np.arange(len(self))[numbers]))[self.number]
        return values if numbers.ndim else values[0]

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise UsageError(only_streamed(str(self.split.records.folder)))


def only_streamed(name: str) -> str:
    """Returns what a program says that has all data in memory."""
    return (
        f"{name}: records are read while a network trains on them (tna train, tna lmc, and the programs on such runs); this program needs "
        "all data in memory: give it an .npz"
    )


def _indices(objective: str) -> bool:
    """Whether integer targets stay integers: of an objective of the user's own, too."""
    return objective in (*arrays.CLASSES, *arrays.TOKENS) or is_reference(objective)


def load(name: str, folder: Path, objective: str) -> Dataset:
    """Opens the examples of a folder.

    Args:
      name: the data, for titles and errors.
      folder: see above.
      objective: what is trained: classification takes one label for each example, others any targets.

    Raises:
      DataError, UsageError: no or damaged records, or ones that do not go together; names the file.
    """
    found = _splits(name, folder)
    kinds = {part: records.kinds for part, records in found.items()}
    if len(set(kinds.values())) > 1:
        train, test = (f"{k.x[0]} {k.x[1]} and {k.y[0]} {k.y[1]}" for k in kinds.values())
        raise DataError(f"{name}: x and y of train are {train}, of test {test}")
    _check_targets(name, kinds["train"].y, objective)
    limits, notes = _limits(found)
    outputs, classes = _outputs(name, kinds["train"].y[1], limits, objective)
    fingerprints = [records.fingerprint() for records in found.values()]
    if len(found) == 1:
        rows, held = _rows(len(found["train"]), name)
        found = {"train": found["train"].select(rows[held:]), "test": found["train"].select(rows[:held])}
    span = None if limits is None else (min(low for low, _ in limits), max(high for _, high in limits))
    split, held_out = (StreamedSplit(records, part, objective, span) for part, records in found.items())
    scaled = split.images.dtype == np.uint8
    channels = split.images.shape[-1] if scaled else 0
    mean, std = (0.0, 1.0) if channels == 1 else (0.5, 0.5)
    return Dataset(
        name, cast(Split, split), cast(Split, held_out), outputs, classes, 255 if scaled else 1, (mean,) * channels, (std,) * channels,
        fingerprint=arrays.joined(fingerprints), notes=notes,
    )  # fmt: skip


def _splits(name: str, folder: Path) -> dict[str, Records]:
    if has_records(folder):
        return {"train": Records(folder)}
    if not has_records(folder / "train"):
        holds = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else ""
        raise DataError(
            f"{name}: {folder} holds {holds or 'nothing'}, expected train/ and test/ with *.array_record files, or such files"
        )
    tests = [part for part in TESTS if has_records(folder / part)]
    parts = {"train": folder / "train"} | ({"test": folder / tests[0]} if tests else {})
    return {part: Records(place) for part, place in parts.items()}


def _rows(count: int, name: str) -> tuple[Array, int]:
    """A seeded order, and how many of it, from the first, are the test split: as for arrays."""
    if count < 2:
        raise DataError(f"{name}: one example, and no test examples; two or more are needed to cut a test split")
    return permutation(count, SUBSET_SEED), max(1, round(arrays.HELD * count))


def _check_targets(name: str, kind: tuple[Any, tuple[int, ...]], objective: str) -> None:
    dtype, shape = kind
    if objective in (*arrays.CLASSES, *arrays.TOKENS) and dtype.kind == "f":
        raise DataError(f"{name}: y holds {dtype}, expected integers for --objective {objective}")
    if objective in arrays.CLASSES and shape not in ((), (1,)):
        raise DataError(f"{name}: y of an example has shape {shape}, expected one label, (), for classification")


def _limits(found: dict[str, Records]) -> tuple[list[tuple[int, int]] | None, tuple[str, ...]]:
    """The smallest and largest target of each split; where nobody wrote it down, all records are read for it."""
    if next(iter(found.values())).kinds.y[0].kind == "f":
        return None, ()
    limits, notes = [], []
    for part, records in found.items():
        known = records.about.targets if records.about else None
        if known is None:
            notes.append(
                f"all records of {part} were read for the range of their targets: tna_jax.io.write_records notes it"
            )
            known = _scanned(records)
        limits.append(known)
    return limits, tuple(notes)


def _scanned(records: Records) -> tuple[int, int]:
    size = max(1, min(SCANNED, 2**26 // max(1, records.example_bytes)))
    rows = [np.arange(start, min(start + size, len(records))) for start in range(0, len(records), size)]
    spans = [(int(y.min()), int(y.max())) for _, y in records.batches(rows, ahead=2) if y.size]
    return min((low for low, _ in spans), default=0), max((high for _, high in spans), default=0)


def _outputs(
    name: str, shape: tuple[int, ...], limits: list[tuple[int, int]] | None, objective: str
) -> tuple[int, tuple[str, ...]]:
    """How many outputs a network needs, and the names of classes."""
    if limits is None or objective not in (*arrays.CLASSES, *arrays.TOKENS):
        return int(np.prod(shape, dtype=np.int64)), ()
    if objective in arrays.TOKENS:
        return max(0, *(high for _, high in limits)) + 1, ()
    if (low := min(low for low, _ in limits)) < 0:
        raise DataError(f"{name}: labels from {low}, expected 0 and up")
    count = limits[0][1] + 1
    if limits[-1][1] >= count:
        raise DataError(f"{name}: test has labels up to {limits[-1][1]}, train only up to {count - 1}")
    return count, tuple(map(str, range(count)))

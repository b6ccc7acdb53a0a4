"""Natural clients in files: a folder of tables (.csv, .tsv, .parquet) or of .npz files, one a client, called as the file."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tna_jax.programs.cli.dataset_names import TABLES
from tna_jax.programs.data import npz, table
from tna_jax.programs.data.arrays import NAMES, OWNERS
from tna_jax.programs.data.source import DataError

SUFFIXES = (*TABLES, ".npz")


def listed(folder: Path) -> list[Path]:
    """Returns the files of clients in a folder, by name; none where it is a folder of something else."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return (
        files if files and not any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir()) else []
    )


class Files(NamedTuple):
    """What the files of all clients hold together."""

    values: dict[str, np.ndarray]
    """The arrays, with `client_train`."""
    class_names: tuple[str, ...]
    """Of tables; else empty."""
    notes: tuple[str, ...]
    """What was left out."""


def read(files: list[Path], target: str | None, objective: str) -> Files:
    """Reads all clients' files. Columns go by their names, in the order of the first file.

    Raises:
      DataError: a file cannot be read, or holds other columns, shapes or types than the first, or test arrays where others have none; or files
        of two kinds, or of one client.
    """
    homes = Counter(path.stem for path in files)
    if twice := [path.name for path in files if homes[path.stem] > 1]:
        raise DataError(
            f"{files[0].parent}: a client is called as its file, and these would be one: {', '.join(twice)}"
        )
    kinds = {path.suffix.lower() for path in files}
    if len(kinds) > 1:
        raise DataError(f"{files[0].parent}: files of clients are of one kind, these end in {', '.join(sorted(kinds))}")
    return _archives(files) if ".npz" in kinds else _tables(files, target, objective)


def _owners(files: list[Path], sizes: list[int]) -> np.ndarray:
    return np.repeat([path.stem for path in files], sizes)


def _tables(files: list[Path], target: str | None, objective: str) -> Files:
    """Reads the rows of all as one table: a column of text in one file is one of text in all."""
    parts = [table.columns(path) for path in files]
    first = list(parts[0])
    for path, part in zip(files, parts, strict=True):
        if set(part) != set(first):
            lacks, more = [name for name in first if name not in part], [name for name in part if name not in first]
            other = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"has {', '.join(more)}"] * bool(more)
            raise DataError(f"{path}: its columns are not those of {files[0].name}: it {' and '.join(other)}")
    together = {name: [cell for part in parts for cell in part[name]] for name in first}
    try:
        values, notes = table.arrays(together, target, objective, f"the tables of {files[0].parent.name}")
    except DataError as error:
        raise _by_file(files, parts, target, objective) or error from error
    sizes = [len(part[first[0]]) for part in parts]
    names: tuple[str, ...] = ()
    if objective == "classification":
        values["y_train"], names = table.in_order(values["y_train"])
    return Files(values | {OWNERS: _owners(files, sizes)}, names, notes)


def _by_file(files: list[Path], parts: list[table.Columns], target: str | None, objective: str) -> DataError | None:
    """Returns what is wrong with each file by itself; None where that shows in all of them together only, or in each."""
    wrong = []
    for path, part in zip(files, parts, strict=True):
        try:
            table.arrays(part, target, objective, str(path))
        except DataError as error:
            wrong.append(str(error))
    return DataError("; ".join(wrong)) if 0 < len(wrong) < len(files) else None


def _archives(files: list[Path]) -> Files:
    parts = [npz.read(path) for path in files]
    first = [name for name in NAMES if name in parts[0]]
    for path, part in zip(files, parts, strict=True):
        if not {"x_train", "y_train"} <= set(part):
            raise DataError(f"{path}: holds {', '.join(part) or 'nothing'}, expected x_train and y_train")
        if (here := [name for name in NAMES if name in part]) != first:
            raise DataError(
                f"{path}: holds {', '.join(here)}, {files[0].name} {', '.join(first)}: all have test arrays, or none"
            )
        for name in first:
            _check_alike(path, files[0].name, name, part[name], parts[0][name])
        for x, y in (("x_train", "y_train"), ("x_test", "y_test")):
            if x in first and len(part[x]) != len(part[y]):
                raise DataError(f"{path}: {x} has {len(part[x])} examples, {y} has {len(part[y])}")
        if not len(part["x_train"]):
            raise DataError(f"{path}: x_train and y_train have no examples")
    values = {name: np.concatenate([part[name] for part in parts]) for name in first}
    return Files(values | {OWNERS: _owners(files, [len(part["x_train"]) for part in parts])}, (), ())


def _check_alike(path: Path, first: str, name: str, array: np.ndarray, other: np.ndarray) -> None:
    """Raises DataError for arrays that NumPy would join all the same, into nonsense: bytes and fractions, numbers and words."""
    if not array.ndim or not other.ndim:
        raise DataError(f"{path if not array.ndim else first}: {name} is a single value")
    if array.shape[1:] != other.shape[1:]:
        what = "examples" if name[0] == "x" else "targets"
        raise DataError(f"{path}: {what} are {array.shape[1:]}, in {first} {other.shape[1:]}")
    if _kind(name, array) != _kind(name, other):
        raise DataError(f"{path}: {name} holds {array.dtype}, in {first} {other.dtype}")


def _kind(name: str, array: np.ndarray) -> str:
    """Bytes are images, other integers are not; labels are integers of any type."""
    if name[0] == "x" and array.dtype == np.uint8:
        return "bytes"
    return "integers" if array.dtype.kind in "iu" else array.dtype.kind

"""Data from a table, CSV, TSV or Parquet: numeric columns are the inputs, one column the target."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.data.source import DataError

MAX_CLASSES = 1000
EXACT = 2**24
"""Integers up to it are the same in float32."""
COUNTED = 10
"""Rows from which on a column of 0, 1, 2, ... is no accident."""
Columns = dict[str, list[Any]]


def columns(path: Path) -> Columns:
    """Reads a table, its columns by name: text of CSV and TSV (which have a header), values of Parquet.

    Raises:
      DataError: it cannot be read, a row has other fields than the header, a name is there twice, or there are no rows.
    """
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _text(path)
    if not table or not next(iter(table.values())):
        raise DataError(f"{path}: no examples")
    return table


def arrays(
    table: Columns, target: str | None, objective: str, where: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns a table's `x_train` (N, F) float32 and `y_train` (N,), and notes: columns of text that were left out.

    For classification different values of the target are the classes, in the order of numbers or letters.

    Raises:
      DataError: no such target, cells that are not numbers or not finite, or no numeric column.
    """
    require_columns(table, [target], where, "--target")
    rows = {name: _numbers(values) for name, values in table.items() if name != target}
    left_out = [name for name, values in rows.items() if np.isnan(values).mean() > 0.5]
    features = {name: values for name, values in rows.items() if name not in left_out}
    for name, values in features.items():
        _check_cells(name, values, table[name], where)
    if not features:
        raise DataError(f"{where}: no column of numbers beside {target}")
    notes: tuple[str, ...] = (f"columns left out, which are not numbers: {', '.join(left_out)}",) if left_out else ()
    if counting := [
        name
        for name, values in features.items()
        if len(values) >= COUNTED and values[0] % 1 == 0 and (np.diff(values) == 1).all()
    ]:
        notes += (
            f"columns that only count the examples, and are inputs all the same: {', '.join(counting)}; take an index out of the file",
        )
    cells = table[str(target)]
    if rounded := [
        name for name, values in features.items() if np.abs(values).max() > EXACT and (values % 1 == 0).all()
    ]:
        notes += (
            f"columns of integers that float32 rounds, above {EXACT}: {', '.join(rounded)}; subtract what is common, or leave them out",
        )
    unlabeled = sum(str(cell).strip() == "-1" for cell in cells) if objective == "classification" else 0
    if unlabeled and len(set(map(str, cells))) > 2:
        notes += (
            f"{unlabeled} examples are of the class -1, one like the others; if it stands for no label, take them out of the file",
        )
    y = classes(cells, str(target), where) if objective == "classification" else _target(cells, str(target), where)
    return {"x_train": np.stack(list(features.values()), axis=1), "y_train": y}, notes


def require_columns(table: Iterable[str], names: Iterable[str | None], where: str, option: str = "") -> None:
    """Raises DataError, which lists the columns there, for a column that is not among them."""
    there = list(table)
    for name in names:
        if name not in there:
            lacks = f"{option} names no column" if name is None else f"there is no column {name!r}"
            raise DataError(f"{where}: {lacks}; the columns are {', '.join(map(str, there))}")


def classes(cells: list[Any], name: str, where: str, many: bool = False) -> np.ndarray:
    """Returns (N,) the cells as names of classes, or of owners, of which there may be `many`.

    Raises:
      DataError: empty cells, or so many different ones that they are no classes.
    """
    words = np.array(["" if cell is None else str(cell).strip() for cell in cells])
    if (empty := np.flatnonzero(np.isin(np.char.lower(words), ("", "nan")))).size:
        raise DataError(f"{where}: {empty.size} empty cells in the column {name}, the first in example {empty[0]}")
    different = np.unique(words)
    if many:
        return words
    numbers: dict[float, str] = {}
    for word in filter(_is_number, different.tolist()):
        if (other := numbers.setdefault(float(word), word)) != word:
            raise DataError(
                f"{where}: {other!r} and {word!r} of {name} are one number, and would be two classes; write it in one way"
            )
    if len(different) > MAX_CLASSES or (len(different) > 20 and len(different) > len(words) / 2):
        raise DataError(
            f"{where}: {len(different)} different values of {name} in {len(words)} examples are no classes; numbers are for regression (--objective regression of tna train and tna lmc)"
        )
    return words


def in_order(words: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns (N,) int32 labels and the names of classes: numbers in their order, else by the alphabet."""
    names = sorted(set(words.tolist()), key=lambda word: (0, float(word), word) if _is_number(word) else (1, 0.0, word))
    numbers = {name: i for i, name in enumerate(names)}
    return np.array([numbers[word] for word in words.tolist()], np.int32), tuple(names)


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _target(cells: list[Any], name: str, where: str) -> np.ndarray:
    values = _numbers(cells)
    _check_cells(name, values, cells, where)
    return values


def _numbers(cells: list[Any]) -> np.ndarray:
    """(N,) float64, NaN for what is no number."""

    def number(cell: Any) -> float:
        if isinstance(cell, str) and "_" in cell:  # 1_000 to Python
            return np.nan
        try:
            return float(cell)
        except (TypeError, ValueError):
            return np.nan

    return np.array([number(cell) for cell in cells], np.float64)


def _check_cells(name: str, values: np.ndarray, cells: list[Any], where: str) -> None:
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    if bad.size:
        raise DataError(
            f"{where}: {bad.size} cells of the column {name} are not finite numbers; the first is {cells[bad[0]]!r} in example {bad[0]}"
        )


def _text(path: Path) -> Columns:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            tabs = path.suffix.lower() == ".tsv"
            mark = "\t" if tabs else ";" if ";" in first and "," not in first else ","
            rows = [
                row
                for row in csv.reader(file, delimiter=mark, quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL)
                if row
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    header = [name.strip() for name in rows[0]] if rows else []
    _check_header(header, path)
    if odd := [i for i, row in enumerate(rows[1:]) if len(row) != len(header)]:
        raise DataError(
            f"{path}: {len(odd)} rows have other than {len(header)} fields; the first, example {odd[0]}, has {len(rows[1 + odd[0]])}"
        )
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from error
    try:
        read = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from error
    _check_header(read.column_names, path)
    return {name: read.column(i).to_pylist() for i, name in enumerate(read.column_names)}


def _check_header(names: list[str], path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    fault = (
        f"columns named more than once: {', '.join(twice)}"
        if twice
        else "columns without a name"
        if "" in names
        else ""
    )
    if fault:
        raise DataError(f"{path}: {fault}; the first row must name each column once")

"""Natural clients in files: a folder of tables (.csv, .tsv, .parquet) or of .npz files, one a client, called as the file."""

from pathlib import Path

import numpy as np

from tna_jax.programs.cli.dataset_names import TABLES
from tna_jax.programs.data import npz, table
from tna_jax.programs.data.arrays import OWNERS
from tna_jax.programs.data.source import DataError

SUFFIXES = (*TABLES, ".npz")


def listed(folder: Path) -> list[Path]:
    """Returns the files of clients in a folder, by name; none where it is a folder of something else."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return files if files and not any(path.is_dir() for path in folder.iterdir()) else []


def read(files: list[Path], target: str | None, objective: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Reads all clients' files: the arrays of all together, with `client_train`, and the names of classes that tables have.

    Test arrays count where every file has them.

    Raises:
      DataError: a file cannot be read, or holds other columns or shapes than the first; or files of two kinds.
    """
    kinds = {path.suffix.lower() for path in files}
    if len(kinds) > 1:
        raise DataError(f"{files[0].parent}: files of clients are of one kind, these end in {', '.join(sorted(kinds))}")
    tables = ".npz" not in kinds
    parts = [_table(path, target, objective) if tables else npz.read(path) for path in files]
    for path, part in zip(files, parts, strict=True):
        if not {"x_train", "y_train"} <= set(part):
            raise DataError(f"{path}: holds {', '.join(part) or 'nothing'}, expected x_train and y_train")
        if part["x_train"].shape[1:] != parts[0]["x_train"].shape[1:]:
            shapes = part["x_train"].shape[1:], parts[0]["x_train"].shape[1:]
            raise DataError(f"{path}: examples are {shapes[0]}, in {files[0].name} {shapes[1]}")
    names = [name for name in ("x_train", "y_train", "x_test", "y_test") if all(name in part for part in parts)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in names}
    sizes = [len(part["x_train"]) for part in parts]
    values[OWNERS] = np.repeat([path.stem for path in files], sizes)
    if tables and objective == "classification":
        values["y_train"], classes = table.in_order(values["y_train"])
        return values, classes
    return values, ()


def _table(path: Path, target: str | None, objective: str) -> dict[str, np.ndarray]:
    return table.arrays(table.columns(path), target, objective, path.name)[0]

"""Data from a file of NumPy arrays, `.npz`: `x_train`, `y_train`, `x_test`, `y_test`. Pickles are refused."""

import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tna_jax.programs.data.arrays import NAMES, OWNERS
from tna_jax.programs.data.source import DataError


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads the four arrays, as far as they are there, and of others the names alone.

    Raises:
      DataError: it is not such a file, is damaged, or an array holds Python objects.
    """
    try:
        with open(path, "rb") as opened:
            return _arrays(path, opened)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as .npz ({' '.join(str(error).split())})") from error


def _arrays(path: Path, opened: BinaryIO) -> dict[str, np.ndarray]:
    file = np.load(opened, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: holds one array, expected an .npz with {', '.join(NAMES)}")
    arrays: dict[str, np.ndarray] = {}
    with file:
        for name in file.files:
            try:
                arrays[name] = file[name] if name in (*NAMES, OWNERS) else np.empty(0)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                pickled = "allow_pickle" in str(error)
                fault = (
                    "holds Python objects (a pickle), which can run any code and are not read"
                    if pickled
                    else f"cannot be read ({error})"
                )
                raise DataError(f"{path}: {name} {fault}") from error
    return arrays

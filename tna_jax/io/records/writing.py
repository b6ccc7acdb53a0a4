"""Examples written one by one into files of records."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json
from tna_jax.io.records.encoding import Kinds, Layout, described, number_kinds
from tna_jax.io.records.files import ABOUT, INSTALL, SUFFIX, record_files

FORMAT = 1


FILE_BYTES = 2**28
"""Of one file, about."""


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
    with Files(folder, file_bytes) as files:
        for x, y in examples:
            files.add(np.asarray(x), np.asarray(y))
    return files.count


class Files:
    """Files of records in the making: they get their names when all are whole."""

    def __init__(self, folder: Path, file_bytes: int) -> None:
        try:
            from array_record.python.array_record_module import ArrayRecordWriter
        except ImportError as error:
            raise UsageError(INSTALL) from error
        folder.mkdir(parents=True, exist_ok=True)
        if record_files(folder):
            raise UsageError(f"{folder} holds records already: name a new folder")
        self.open, self.folder, self.file_bytes = ArrayRecordWriter, folder, file_bytes
        self.layout: Layout | None = None
        self.writer: Any = None
        self.paths: list[Path] = []
        self.count = self.size = 0
        self.digest, self.low, self.high = hashlib.sha256(), 0, 0

    def __enter__(self) -> "Files":
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
            self.layout = Layout(number_kinds(kinds, f"{self.folder}: example 0"))
        if kinds != self.layout.kinds:
            first = f"the first is {described(self.layout.kinds)}"
            raise UsageError(f"{self.folder}: example {self.count} is {described(kinds)}, {first}")
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

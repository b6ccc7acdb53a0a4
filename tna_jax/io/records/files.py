"""The files of a folder of records: which they are, what they say of themselves, their bytes by number."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tna_jax.io.errors import UsageError

ABOUT = "records.json"


SUFFIX = ".array_record"


INSTALL = "records need Grain: pip install 'tna-jax[stream]'"


class About(NamedTuple):
    """What `records.json` says of a folder."""

    examples: int
    targets: tuple[int, int] | None
    """The smallest and the largest integer target; None for other targets."""
    sha256: str
    """Of all records."""


def record_files(folder: Path) -> list[Path]:
    """The files of records in a folder, by name; also those that TensorFlow Datasets calls `NAME.array_record-00000-of-00001`."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if SUFFIX in path.name and not path.name.startswith("."))


def has_records(folder: Path) -> bool:
    """Returns whether a folder holds files of records."""
    return bool(record_files(folder))


class Source:
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
                raise UsageError(f"{file} is no ArrayRecord file, or damaged ({in_a_line(error)})") from error
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


def read_about(folder: Path, examples: int) -> About | None:
    """Reads what `records.json` says of a folder that holds `examples` records; `None` without that file."""
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


def in_a_line(error: BaseException) -> str:
    """Returns what an error says in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]

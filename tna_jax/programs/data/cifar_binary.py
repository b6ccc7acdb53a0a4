"""CIFAR's original binary version, unpacked or in its tar.gz (cs.toronto.edu/~kriz/cifar.html, "binary version")."""

import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from tna_jax.programs.data.source import DataError, Split, checked_split

PIXELS = 3 * 32 * 32


def read_folder(folder: Path, files: Sequence[str]) -> dict[str, bytes]:
    """Reads those of `files` that are in the folder: their contents by name.

    Raises:
      DataError: a file cannot be read.
    """
    try:
        return {file: (folder / file).read_bytes() for file in files if (folder / file).is_file()}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error


def read_tar(path: Path, folder: str, files: Sequence[str]) -> dict[str, bytes]:
    """Reads those of `files` that are members `folder/file` of a tar.gz: their contents by name. Nothing is written to disk.

    Raises:
      DataError: the archive is damaged or cut short.
    """
    contents = {}
    try:
        with tarfile.open(path, "r|gz") as archive:  # one pass: going back in a gzip means unpacking it again
            for member in archive:
                at = PurePosixPath(member.name)
                if str(at.parent) == folder and at.name in files and (content := archive.extractfile(member)):
                    contents[at.name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, damaged or cut short ({error})") from error
    return contents


def parse(
    contents: Mapping[str, bytes], files: Sequence[str], label_bytes: int, num_classes: int, *, source: Path
) -> Split:
    """Parses the rows of `files` one after another: images (N, 32, 32, 3) uint8, labels (N,) int32.

    A row is `label_bytes` labels, of which the last is taken (CIFAR-100: coarse, fine), then 32x32 red, green, blue.

    Raises:
      DataError: a file does not hold a whole number of rows, or a label is out of range; names the file.
    """
    parts = []
    row = label_bytes + PIXELS
    for file in files:
        content = contents[file]
        if len(content) % row:
            raise DataError(f"{source}: {file} has {len(content)} bytes, not a multiple of {row}: damaged or cut short")
        rows = np.frombuffer(content, np.uint8).reshape(-1, row)
        images = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts.append(checked_split(images, rows[:, label_bytes - 1], num_classes, source=f"{source}: {file}"))
    return Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )

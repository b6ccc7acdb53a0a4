"""MNIST and Fashion-MNIST from their original idx files, gzipped or not (yann.lecun.com/exdb/mnist, "file formats")."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from tna_jax.programs.data.search_path import candidate_dirs
from tna_jax.programs.data.source import DataError, Dataset, Split, Unusable, checked_split, make

FOLDERS = {
    "mnist": ("mnist", "MNIST"),
    "fashion_mnist": ("fashion_mnist", "fashion-mnist", "FashionMNIST"),
}
CLASS_NAMES = {
    "mnist": tuple(str(digit) for digit in range(10)),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def read(name: str, root: Path) -> Dataset | None:
    """Reads `mnist` or `fashion_mnist` from the four files in a folder named for it, or in its `raw` folder (torchvision's).

    Returns:
      The data set, images (N, 28, 28, 1) uint8 in the order of the files; None if there is no such file.

    Raises:
      Unusable: some of the four files are there, but not all.
      DataError: a file is damaged or the files do not fit together; names the file and the fault.
    """
    notes: list[str] = []
    raws = [root] if root.name == "raw" and root.parent.name in FOLDERS[name] else []
    for home in candidate_dirs(root, FOLDERS[name]):
        raws += [home, home / "raw"]
    for folder in raws:
        paths = {file: path for file in FILES if (path := _existing(folder, file))}
        if len(paths) == len(FILES):
            train, test = _split(paths, "train"), _split(paths, "t10k")
            return make(name, train, test, CLASS_NAMES[name])
        if paths:
            lacking = [f"{file}.gz" for file in FILES if file not in paths]
            notes.append(f"{folder} lacks {', '.join(lacking)}")
    if notes:
        raise Unusable("; ".join(notes))
    return None


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads the uint8 array of `ndim` dimensions in one idx file, gzipped if its name ends in .gz.

    Raises:
      DataError: cannot be read, cut short, another magic number, or a size that its header does not announce.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, damaged or cut short ({error})") from error
    header = 4 + 4 * ndim
    magic = int.from_bytes(content[:4], "big")
    if len(content) < header or magic != 0x0800 + ndim:
        raise DataError(
            f"{path}: not an idx file of {ndim}-dimensional uint8 (magic number {magic}, expected {0x0800 + ndim})"
        )
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4))
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header != expected:
        raise DataError(f"{path}: {len(content) - header} bytes of data, its header {shape} announces {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _split(paths: dict[str, Path], part: str) -> Split:
    images = read_idx(paths[f"{part}-images-idx3-ubyte"], 3)[..., None]
    labels_path = paths[f"{part}-labels-idx1-ubyte"]
    return checked_split(images, read_idx(labels_path, 1), 10, source=labels_path)


def _existing(folder: Path, file: str) -> Path | None:
    return next((path for path in (folder / f"{file}.gz", folder / file) if path.is_file()), None)

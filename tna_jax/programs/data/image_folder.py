"""Data from a folder of images: a subfolder for each class, below `train/` and `test/` or at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.records import has_records
from tna_jax.programs.data import pictures
from tna_jax.programs.data.source import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TESTS = ("test", "val", "validation", "valid")
"""Folders that may hold the test split; the first that is there does."""
LAYOUT = "a subfolder of images for each class, below train/ and test/ or at once"


def read(folder: Path, image_size: int | None) -> dict[str, np.ndarray]:
    """Reads all images, in the order of their names; labels are the names of their folders.

    Raises:
      DataError: it is no such folder, or see `pictures.stack`.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is a file; expected FILE.npz, .csv, .tsv, .parquet or .py:NAME, or a folder with {LAYOUT}"
        )
    if any(has_records(place) for place in (folder, folder / "train")):
        raise DataError(f"{folder} holds records, not images: name it records:{folder}")
    test = next((folder / name for name in TESTS if (folder / name).is_dir()), None)
    parts = {"train": folder}
    if (folder / "train").is_dir():
        if test is None:
            raise DataError(
                f"{folder} has train/ but no {', '.join(f'{name}/' for name in TESTS)}; name {folder / 'train'} for a seeded split"
            )
        parts = {"train": folder / "train", "test": test}
    found = {part: _files(place) for part, place in parts.items()}
    every = [path for files in found.values() for path, _ in files]
    gray = pictures.is_gray(_opener(every), len(every))
    arrays = {}
    for part, files in found.items():
        paths = [path for path, _ in files]
        arrays[f"x_{part}"] = pictures.stack([str(path.relative_to(folder)) for path in paths],
                                             _opener(paths), image_size, str(folder), gray)  # fmt: skip
        arrays[f"y_{part}"] = np.array([name for _, name in files])
    return arrays


def _opener(paths: list[Path]) -> Callable[[int], Any]:
    return lambda i: pictures.from_file(paths[i])


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The images below a folder of classes, each with the name of its class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [(path, home.name) for home in classes for path in sorted(home.rglob("*")) if _is_image(path)]
    if not files:
        loose = sum(_is_image(path) for path in folder.iterdir())
        holds = f"{loose} images that are in no subfolder" if loose else "no images in subfolders"
        raise DataError(f"{folder} holds {holds}, expected {LAYOUT} ({', '.join(SUFFIXES)})")
    if empty := [home.name for home in classes if not any(name == home.name for _, name in files)]:
        raise DataError(f"{folder}: no images in {', '.join(empty[:5])}")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()

"""Data from a folder of images: a subfolder for each class, below `train/` and `test/` or at once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.records import has_records
from tna_jax.programs.cli.dataset_names import TABLES
from tna_jax.programs.data import pictures
from tna_jax.programs.data.source import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CLIENTS = (*TABLES, ".npz")
"""What files of clients end in, see `client_files`."""
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
    gray = pictures.is_gray([str(path.relative_to(folder)) for path in every], _opener(every))
    arrays = {}
    for part, files in found.items():
        paths = [path for path, _ in files]
        arrays[f"x_{part}"] = pictures.stack([str(path.relative_to(folder)) for path in paths],
                                             _opener(paths), image_size, str(folder), gray)  # fmt: skip
        arrays[f"y_{part}"] = np.array([name for _, name in files])
    return arrays


def left_aside(folder: Path) -> tuple[str, ...]:
    """Returns what lies in such a folder and is not read, in sentences; files and folders of the system's own (hidden, `Thumbs.db`) do not count."""
    split = (folder / "train").is_dir()
    tests = [name for name in TESTS if split and (folder / name).is_dir()]
    homes = [folder / name for name in ("train", *tests[:1])] if split else [folder]
    others = [name for name in sorted(path.name for path in folder.iterdir() if path.is_dir()) if split and name not in ("train", *tests[:1])
              and not name.startswith(".")]  # fmt: skip
    notes = [f"not read: {', '.join(f'{name}/' for name in others)} (the test split is {tests[0]}/)"] if others else []
    loose = [path for home in homes for path in sorted(home.iterdir()) if _is_image(path)]
    if loose:
        notes.append(f"not read: images in no subfolder of a class: {len(loose)}, {loose[0].relative_to(folder)} say")
    within = (path for home in homes for kind in home.iterdir() if kind.is_dir() and not kind.name.startswith(".") for path in kind.rglob("*"))  # fmt: skip
    strange = sorted(path for path in within if path.is_file() and not _is_image(path) and not _is_systems(path))
    if strange:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in strange)
        listed = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(5))
        notes.append(
            f"files that are not read, as their names are not those of images: {listed}, {strange[0].relative_to(folder)} say"
        )
    return tuple(notes)


def _is_systems(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")


def _opener(paths: list[Path]) -> Callable[[int], Any]:
    return lambda i: pictures.from_file(paths[i])


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The images below a folder of classes, each with the name of its class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = [(path, home.name) for home in classes for path in sorted(home.rglob("*")) if _is_image(path)]
    if not files:
        loose = sum(_is_image(path) for path in folder.iterdir())
        holds = f"{loose} images that are in no subfolder" if loose else "no images in subfolders"
        tables = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in CLIENTS and path.is_file()]
        if tables and not loose:
            beside = ", ".join(f"{home.name}/" for home in classes)
            raise DataError(
                f"{folder} holds {', '.join(tables[:5])} and subfolders ({beside}): files of clients lie in a folder of their own"
            )
        raise DataError(f"{folder} holds {holds}, expected {LAYOUT} ({', '.join(SUFFIXES)})")
    if empty := [home.name for home in classes if not any(name == home.name for _, name in files)]:
        raise DataError(f"{folder}: no images in {', '.join(empty[:5])}")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()

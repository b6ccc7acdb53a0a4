"""Where data sets are searched for, in which order, and the error for one that is found nowhere."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tna_jax.programs.data.source import DataError


class Place(NamedTuple):
    """A folder that may hold data sets, and who named it."""

    root: Path
    named_by: str


def tfds_root() -> Path:
    """Returns the folder of TensorFlow Datasets: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return _absolute(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def places(data_dir: str | os.PathLike[str] | None) -> list[Place]:
    """Returns the folders to search, in order: `data_dir`, `$TNA_DATA_DIR`, that of TensorFlow Datasets."""
    roots = []
    if data_dir:
        roots.append(Place(_absolute(data_dir), "--data-dir"))
    if os.environ.get("TNA_DATA_DIR"):
        roots.append(Place(_absolute(os.environ["TNA_DATA_DIR"]), "$TNA_DATA_DIR"))
    roots.append(Place(tfds_root(), "TFDS"))
    return roots


def candidate_dirs(root: Path, names: Sequence[str]) -> list[Path]:
    """Returns the existing folders of `root` named for one data set; `root` itself if that is its name.

    A folder is taken for a data set by its name only, never by what is in it: the files of MNIST and Fashion-MNIST
    have the same names.
    """
    itself = [root] if root.name in names else []
    return [home for home in [*itself, *(root / name for name in names)] if home.is_dir()]


DOWNLOAD = ", or pass --download"
"""Advice for programs that have the option, at the end of what `missing` says."""


def missing(name: str, searched: Iterable[Place], holds: str, notes: Sequence[str] = ()) -> DataError:
    """Returns the error for a data set found nowhere; `notes` say which copies could not be used."""
    where = ", ".join(
        f"{place.root} ({place.named_by}{'' if place.root.is_dir() else ', no such folder'})" for place in searched
    )
    problem = f"{name} cannot be used: {'; '.join(notes)}" if notes else f"{name} was not found"
    instead = sorted({hint for place in searched if (hint := _instead(place.root, name, holds))})
    problem += f" ({'; '.join(instead)})" if instead else ""
    advice = f"set TNA_DATA_DIR or --data-dir to a folder that holds {holds}{DOWNLOAD}"
    return DataError(f"{problem}; looked in {where}; {advice}")


def _instead(root: Path, name: str, holds: str) -> str:
    """Says that a folder was named in place of the one above or beside it; empty if it was not."""
    file = Path(holds.split(" ")[0]).name
    if not root.is_dir():
        return ""
    if file and (root / file).is_file():
        return f"{root} holds files of that form itself: name its parent, and call the folder {name}"
    try:
        inner = sorted(path.name for path in root.iterdir() if (path / name).is_dir())
    except OSError:
        return ""
    return f"{root / inner[0]} holds a folder {name}: name that one" if inner else ""


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))

"""Where data sets are looked for, in which order, and what is said when one is found nowhere."""

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
    """The folder of TensorFlow Datasets: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return _absolute(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def places(data_dir: str | os.PathLike[str] | None) -> list[Place]:
    """The folders to look in, first come first served: `data_dir`, `$TNA_DATA_DIR`, that of TensorFlow Datasets."""
    found = []
    if data_dir:
        found.append(Place(_absolute(data_dir), "--data-dir"))
    if os.environ.get("TNA_DATA_DIR"):
        found.append(Place(_absolute(os.environ["TNA_DATA_DIR"]), "$TNA_DATA_DIR"))
    found.append(Place(tfds_root(), "TFDS"))
    return found


def candidate_dirs(root: Path, names: Sequence[str]) -> list[Path]:
    """The existing folders of `root` named for one data set; `root` itself if that is its own name.

    A folder is taken for a data set by its name only, never by what is in it: the files of MNIST and Fashion-MNIST
    have the same names.
    """
    own = [root] if root.name in names else []
    return [home for home in [*own, *(root / name for name in names)] if home.is_dir()]


DOWNLOAD = ", or pass --download"
"""Advice for programs that have the option, at the end of what `missing` says."""


def missing(name: str, looked: Iterable[Place], holds: str, notes: Sequence[str] = ()) -> DataError:
    """The error for a data set found nowhere; `notes` say what was found and could not be used."""
    where = ", ".join(
        f"{place.root} ({place.named_by}{'' if place.root.is_dir() else ', no such folder'})" for place in looked
    )
    found = f"{name} cannot be used: {'; '.join(notes)}" if notes else f"{name} was not found"
    instead = sorted({hint for place in looked if (hint := _instead(place.root, name, holds))})
    found += f" ({'; '.join(instead)})" if instead else ""
    advice = f"set TNA_DATA_DIR or --data-dir to a folder that holds {holds}{DOWNLOAD}"
    return DataError(f"{found}; looked in {where}; {advice}")


def _instead(root: Path, name: str, holds: str) -> str:
    """What a folder looks like that was named in the place of the one above or beside it."""
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

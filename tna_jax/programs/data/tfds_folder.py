"""Finds a data set prepared by TensorFlow Datasets on disk, without importing that package.

Its own answers to a set that is not there are misleading, or come after minutes of trying the network. A folder is
looked at in a millisecond.
"""

import fnmatch
import json
import re
from pathlib import Path
from typing import NamedTuple

from tna_jax.programs.data.source import DataError, Unusable

NAME = re.compile(r"(?P<name>[A-Za-z]\w*)(/(?P<config>[\w.-]+))?(:(?P<version>[\d*]+\.[\d*]+\.[\d*]+))?")


class Spec(NamedTuple):
    """`NAME[/CONFIG][:VERSION]`, as TensorFlow Datasets writes it; `*` may stand for a part of the version."""

    name: str
    config: str | None
    version: str | None


def parse(text: str) -> Spec:
    """Parses `NAME[/CONFIG][:VERSION]`.

    Raises:
      DataError: another form, such as a namespace (`huggingface:NAME`).
    """
    match = NAME.fullmatch(text)
    if match is None:
        raise DataError(
            f"tfds:{text}: expected tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION, as tfds:mnist:3.0.1"
        )
    return Spec(match["name"], match["config"], match["version"])


def find(spec: Spec, root: Path) -> Path | None:
    """Returns the folder that holds the prepared set below `root`: of several versions the newest; None if there is none.

    Raises:
      Unusable: it is stored in a form that cannot be read without TensorFlow, or several configurations are
        prepared and none was named.
      DataError: its description is damaged.
    """
    home = root / spec.name
    newest = None if spec.config else _newest(home, spec.version)
    if newest is None:
        configs = [home / spec.config] if spec.config else sorted(path for path in home.glob("*") if path.is_dir())
        prepared = {path.name: folder for path in configs if (folder := _newest(path, spec.version))}
        if len(prepared) > 1:
            choices = ", ".join(f"tfds:{spec.name}/{config}" for config in prepared)
            raise Unusable(f"{home} holds several configurations: choose one of {choices}")
        newest = next(iter(prepared.values()), None)
    if newest is not None:
        _check_format(newest)
    return newest


def _newest(folder: Path, version: str | None) -> Path | None:
    pattern = version or "*.*.*"
    versions = [
        path.parent
        for path in folder.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name) and fnmatch.fnmatchcase(path.parent.name, pattern)
    ]
    return max(versions, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def _check_format(folder: Path) -> None:
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error})") from error
    if "array_record" not in formats:
        raise Unusable(
            f"{folder} is stored as {formats[0]}, which needs TensorFlow to read: "
            "prepare it with file_format='array_record'"
        )

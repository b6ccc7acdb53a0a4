"""References to code, `package.module:name` or `./file.py:name`, and the file behind one; nothing is run to find it."""

import dataclasses
import hashlib
import importlib.machinery
import os
import re
import sys
from pathlib import Path

from tna_jax.io.errors import UsageError

FORM = "FILE.py:NAME or PACKAGE.MODULE:NAME"
"""What a reference looks like, for messages."""
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclasses.dataclass(frozen=True)
class Source:
    """The file that a reference names, as it is now."""

    reference: str
    """With the absolute path of a file; of a module as it was given."""
    file: Path
    """Absolute."""
    module: str
    """The module's name; empty for a file."""
    name: str
    """Of the function or class in it."""
    code: bytes
    sha256: str
    """Of `code`."""


def is_reference(text: str) -> bool:
    """Returns whether a value names code: it ends in `:NAME`, and before that stands a file `.py` or a module."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and name.isidentifier() and (place.endswith(".py") or bool(_MODULE.fullmatch(place)))


def find(reference: str, option: str) -> Source:
    """Returns the source that a reference names; neither it nor the packages around it are run.

    Args:
      reference: `./file.py:name`, `/folder/file.py:name`, `~/file.py:name` or `package.module:name`.
      option: as it is written, for errors: `--model`.

    Raises:
      UsageError: it is not of that form, or there is no such file or module.
    """
    if not is_reference(reference):
        raise UsageError(f"{option} {reference}: expected {FORM}")
    place, _, name = reference.rpartition(":")
    is_file = place.endswith(".py")
    file = Path(os.path.abspath(Path(place).expanduser())) if is_file else _module_file(place)
    if file is None:
        raise UsageError(f"{option} {reference}: there is no module {place} here; a file is named ./FILE.py:{name}")
    try:
        code = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {reference}: cannot read {file}: {error.strerror or error}") from error
    absolute = f"{file}:{name}" if is_file else reference
    return Source(absolute, file, "" if is_file else place, name, code, hashlib.sha256(code).hexdigest())


def search_path() -> list[str]:
    """Returns where modules are looked for: as Python does, then the current folder."""
    return [*(entry or os.getcwd() for entry in sys.path), os.getcwd()]


def _module_file(module: str) -> Path | None:
    """The source of a module, found part by part: `importlib.util.find_spec` would run the packages around it."""
    path, spec = search_path(), None
    for part in _prefixes(module):
        spec = importlib.machinery.PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    is_source = spec is not None and spec.has_location and spec.origin is not None and spec.origin.endswith(".py")
    return Path(os.path.abspath(spec.origin)) if is_source and spec and spec.origin else None


def _prefixes(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]

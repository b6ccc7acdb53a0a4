"""Which files this user has named on this machine, with their hashes: `tna-jax/trusted.json` in the user's state folder."""

import os
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import PRIVATE, read_json, write_json

_NAMED: set[tuple[str, str]] = set()
"""What was named in this process."""
KEPT = 20
"""Hashes that are remembered of one file, the last ones."""


def file() -> Path:
    """Returns the file that remembers: in $XDG_STATE_HOME, or in ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "tna-jax" / "trusted.json"


def is_trusted(source: Path, sha256: str) -> bool:
    """Returns whether this user has named that very file, with these contents, before."""
    return (str(source), sha256) in _NAMED or sha256 in _hashes(_read(), source)


def remember(source: Path, sha256: str) -> None:
    """Remembers that this user named the file with these contents; where that cannot be written, for this process alone."""
    _NAMED.add((str(source), sha256))
    known = _read()
    hashes = _hashes(known, source)
    if hashes[-1:] == [sha256]:
        return
    known[str(source)] = [*(old for old in hashes if old != sha256), sha256][-KEPT:]
    try:
        file().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(file(), {"files": known}, mode=PRIVATE)
    except OSError:
        return


def _read() -> dict[str, Any]:
    """The hashes by file; a list that is not there or is damaged trusts nothing."""
    try:
        value = read_json(file())
    except UsageError:
        return {}
    files = value.get("files") if isinstance(value, dict) else None
    return files if isinstance(files, dict) else {}


def _hashes(known: dict[str, Any], source: Path) -> list[str]:
    hashes = known.get(str(source), [])
    return [one for one in hashes if isinstance(one, str)] if isinstance(hashes, list) else []

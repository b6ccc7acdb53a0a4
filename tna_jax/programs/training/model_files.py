"""The files of model folders that a run reads, by their contents: a resumed run goes on only with those that it was started from.

The whole files are hashed, not their sizes or headers: a model that was trained on has the same of both. It takes 0.25 s for 90 MB.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tna_jax.hf.hub import FILES
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import checkpoint_names
from tna_jax.programs.training import backbone

Hashes = dict[str, dict[str, str]]
"""By model, as a run records its name, and file: the sha256."""


def hashes(checkpoints: Sequence[str]) -> Hashes:
    """Reads all that is read of Hugging Face folders: weights, configuration, tokenizer, scaling of images.

    Raises:
      UsageError: a file cannot be read.
    """
    return {checkpoint_names.absolute(name): _of_folder(Path(backbone.locate(name))) for name in checkpoints}


def _of_folder(folder: Path) -> dict[str, str]:
    files = sorted({file for pattern in FILES for file in folder.glob(pattern) if file.is_file()})
    try:
        return {file.name: _sha256(file) for file in files}
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_same(recorded: Any, now: Hashes, run: Path) -> None:
    """Raises UsageError that names every file which is not what it was when the run was started.

    Args:
      recorded: what its config.json holds of them; None in runs of earlier versions.
      now: the hashes of the same models.
      run: the folder.
    """
    if not isinstance(recorded, dict):
        return
    wrong = [
        f"{Path(model) / file} {problem}"
        for model, files in now.items()
        if isinstance(before := recorded.get(model), dict)
        for file in sorted({*before, *files})
        if (problem := _problem(before.get(file), files.get(file)))
    ]
    if wrong:
        raise UsageError(
            f"--resume: not the files any more that {run} was started from: {'; '.join(wrong)}; put the old ones back, or start a run "
            "of its own with another --out"
        )


def _problem(before: str | None, now: str | None) -> str:
    if before == now:
        return ""
    return "is gone" if now is None else "is new" if before is None else "has changed"

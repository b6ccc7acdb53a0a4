"""What the value of `--checkpoint` names: a folder, or a checkpoint by its name. Imports no JAX."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tna_jax.hf.cache import is_name, place
from tna_jax.hf.checkpoints import CHECKPOINTS, HUB
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.ranges import Rule


def problem(flag: str, checkpoint: str) -> str:
    """Returns what is wrong with a checkpoint, as far as its name says; empty if nothing is. Whether a folder holds a model is for loading to say."""
    if not checkpoint:
        return f"{flag} must not be empty"
    if Path(checkpoint).is_dir() or checkpoint in CHECKPOINTS:
        return ""
    if checkpoint.startswith(HUB):
        try:
            place(checkpoint)
        except UsageError as error:
            return f"{flag} {error}"
        return ""
    near = difflib.get_close_matches(checkpoint, CHECKPOINTS, n=1)
    return f"{flag}: there is no folder {checkpoint}; did you mean the checkpoint {near[0]}?" if near else ""


def absolute(checkpoint: str) -> str:
    """Returns a checkpoint as a run records it: a folder by its absolute path, so that the run is resumed from anywhere."""
    return checkpoint if is_name(checkpoint) else os.path.abspath(checkpoint)


def twice(names: Sequence[str]) -> list[str]:
    """Returns the checkpoints that are named more than once, with all their spellings: `a = ./a`."""
    places: dict[str, list[str]] = {}
    for name in names:
        places.setdefault(name if is_name(name) else os.path.realpath(name), []).append(name)
    return [" = ".join(dict.fromkeys(same)) for same in places.values() if len(same) > 1]


def require_outside(settings: Any, names: Sequence[str | None]) -> None:
    """Raises UsageError where `--overwrite` would replace a run in whose folder lies what the new one reads."""
    if not settings.overwrite or settings.out is None:
        return
    out = Path(settings.out).resolve()
    inside = [name for name in names if name and not is_name(name) and Path(name).resolve().is_relative_to(out)]
    if inside:
        raise UsageError(
            f"--overwrite would replace --out {settings.out}, which holds {', '.join(inside)}: name another folder"
        )


CHECKPOINT = Rule(problem)

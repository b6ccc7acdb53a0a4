"""Restores the newest undamaged checkpoint of a run: says which were damaged, and sets those aside when the run resumes."""

from pathlib import Path
from typing import Any

from tna_jax.io import restore as reading
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.system import distributed

DAMAGED = "damaged"
"""Folder beside the checkpoints that damaged ones are moved to when the run is resumed."""


def newest(folder: Path, tree: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Reads the newest undamaged checkpoint, see `tna_jax.io.restore.newest`; warns of damaged newer ones."""
    step, state, _ = _newest(folder, tree)
    return step, state


def restore(folder: Path, tree: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Reads as `newest` does, to resume from there: damaged checkpoints are moved away. All processes must call it."""
    step, state, damaged = _newest(folder, tree)
    if distributed.broadcast_text(str(step)) != str(step):
        raise UsageError(f"the processes see different checkpoints in {folder}; it must be one shared folder")
    if damaged and distributed.is_main_process():
        aside = folder.parent / DAMAGED
        aside.mkdir(exist_ok=True)
        for bad in damaged:
            free = next(name for i in range(10**6) if not (name := aside / (f"{bad}-{i}" if i else f"{bad}")).exists())
            (folder / str(bad)).rename(free)
    distributed.broadcast_text("moved")
    return step, state


def _newest(folder: Path, tree: dict[str, Any]) -> tuple[int, dict[str, Any], dict[int, str]]:
    step, state, damaged = reading.newest(folder, tree)
    for bad, reason in damaged.items():
        print_warning(f"checkpoint {bad} of {folder.parent} is damaged: {reason}; using checkpoint {step}")
    return step, state, damaged

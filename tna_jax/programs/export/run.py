"""`tna export RUN`: one model of a run as a safetensors file, with what made it and the recipe of its anchors inside."""

import json
from pathlib import Path
from typing import Any

from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.restore import newest_parts
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.progress import console
from tna_jax.programs.export.options import ExportOptions
from tna_jax.programs.runs.exported import ABOUT
from tna_jax.programs.runs.folder import CONFIG, Run
from tna_jax.programs.system import distributed


def run(settings: ExportOptions) -> Path:
    """Writes the file and returns its path."""
    folder = Run.open(settings.run)
    config = {name: value for name, value in folder.read(CONFIG).items() if name not in parsing.ABOUT}
    models, _ = folder.plan()
    if settings.model is None and len(models) > 1:
        raise UsageError(f"{folder.folder} has {len(models)} models: choose one with --model, 0 to {len(models) - 1}")
    index = settings.model or 0
    if not 0 <= index < len(models):
        raise UsageError(f"--model must lie in 0 to {len(models) - 1}, got {index}")
    file = Path(settings.out or folder.folder / f"model-{index}.safetensors")
    if file.exists() and not settings.overwrite:
        raise UsageError(f"{file} exists; name another file with -o, or add --overwrite")
    if not file.parent.is_dir():
        raise UsageError(f"-o {file}: there is no folder {file.parent}")
    step, arrays = stacked(folder)
    wrong = [f"{name} {list(array.shape)}" for name, array in arrays.items() if array.shape[:1] != (len(models),)]
    if wrong:
        raise UsageError(
            f"{folder.folder}: plan.json names {len(models)} models, but these arrays differ: {', '.join(wrong)}"
        )
    about = describe(config, models[index], step)
    safetensors.write(file, {name: array[index] for name, array in arrays.items()}, {ABOUT: json.dumps(about)})
    if distributed.is_main_process():
        print(f"wrote {file}: model {index} of {folder.folder}, {len(arrays)} arrays, checkpoint {step}")
    return file


def describe(config: dict[str, Any], model: dict[str, Any], step: int) -> dict[str, Any]:
    """Returns the metadata of a model: its anchors are drawn again from `mask` alone, see `tna_jax.masks.AnchorRecipe`."""
    mask = {
        "kind": config.get("anchors"),
        "ratio": model.get("ratio"),
        "seed": model.get("seed"),
        "where": config.get("where"),
        "soft": config.get("soft"),
    }
    return {"format": FORMAT, "config": config, "model": model, "mask": mask, "checkpoint": step}


def stacked(folder: Run) -> tuple[int, dict[str, Any]]:
    """Reads the newest undamaged checkpoint: its step, and its parameters and norm state by name, (M, ...).

    Raises:
      UsageError: there is none.
    """
    step, arrays, damaged = newest_parts(folder.checkpoints, "params", "state")
    for bad, reason in damaged.items():
        console.print(f"warning: checkpoint {bad} is damaged: {reason}; using checkpoint {step}")
    return step, arrays

"""How far the training was whose models are looked at: numbers of an interrupted run say so, and are told from newer ones."""

import shlex
from typing import Any

from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.runs.folder import Run

TRAINED = ("lmc", "train")
"""Programs whose checkpoints are numbered by epochs."""


def reached(folder: Run, config: dict[str, Any], step: int) -> dict[str, Any]:
    """The checkpoint that was read, for a results file: the run, its number, and that of the last one (None: not known)."""
    epochs = config.get("epochs")
    last = None
    if config.get("program", "train") in TRAINED and type(epochs) is int:
        models, wave = folder.plan()
        last = epochs * -(-len(models) // wave)
    return {"run": str(folder.folder), "step": step, "last": last}


def interrupted(one: dict[str, Any]) -> bool:
    """Whether the training had not come to its end."""
    return one["last"] is not None and one["step"] < one["last"]


def warn(checkpoints: list[dict[str, Any]]) -> list[str]:
    """What is not finished, in sentences, also printed."""
    found = [
        f"{one['run']} is not finished: these are its models at checkpoint {one['step']} of {one['last']} epochs; "
        f"to go on: tna resume {shlex.quote(one['run'])}"
        for one in checkpoints
        if interrupted(one)
    ]
    for sentence in found:
        console.print(f"warning: {sentence}", highlight=False)
    return found


def stale(result: dict[str, Any], newest: int) -> str:
    """What a report says of results that were made before the run's newest checkpoint; nothing of others."""
    checkpoints = result.get("checkpoints")
    if not isinstance(checkpoints, list) or not checkpoints or not isinstance(checkpoints[0], dict):
        return ""
    step = checkpoints[0].get("step")
    if type(step) is not int or step >= newest:
        return ""
    return f"Older than the run: made of checkpoint {step}, the newest is {newest}. Run the program again."


def title(result: dict[str, Any]) -> str:
    """The data, network and training of a result, above its figure."""
    config = result["run"]
    parts = [str(config.get("dataset", "")), result["network"]]
    parts += [f"{plural(config['epochs'], 'epoch')}"] if "epochs" in config else []
    parts += [f"mask ratio {config['ratio']:g}"] if "ratio" in config else []
    parts += [
        f"NOT FINISHED: checkpoint {one['step']} of {one['last']}"
        for one in result.get("checkpoints", [])
        if interrupted(one)
    ]
    return ", ".join(part for part in parts if part)

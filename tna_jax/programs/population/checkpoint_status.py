"""How far the training of the models was: results of an interrupted run say so, and are told from newer ones."""

from typing import Any

from tna_jax.programs.cli.messages import print_warning, shell_words
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.wording import dataset_name
from tna_jax.programs.runs.folder import Run

TRAINED = ("lmc", "train")
"""Programs whose checkpoints are numbered by epochs."""


def reached(folder: Run, config: dict[str, Any], step: int) -> dict[str, Any]:
    """Returns the checkpoint that was read, for a results file: the run, its step, and that of the last one (None: not known)."""
    epochs = config.get("epochs")
    last = None
    if config.get("program", "train") in TRAINED and type(epochs) is int:
        models, wave = folder.plan()
        last = epochs * -(-len(models) // wave)
    return {"run": str(folder.folder), "step": step, "last": last}


def interrupted(checkpoint: dict[str, Any]) -> bool:
    """Returns whether the training had not come to its end."""
    return checkpoint["last"] is not None and checkpoint["step"] < checkpoint["last"]


def warn(checkpoints: list[dict[str, Any]]) -> list[str]:
    """Prints and returns a sentence for each run that is not finished."""
    sentences = [
        f"{read['run']} is not finished: these are its models at checkpoint {read['step']} of {read['last']} epochs; "
        f"to resume: tna resume {shell_words(read['run'])}"
        for read in checkpoints
        if interrupted(read)
    ]
    for sentence in sentences:
        print_warning(sentence)
    return sentences


def stale(result: dict[str, Any], newest: int) -> str:
    """Says of results that they are older than the run's newest checkpoint; empty for others."""
    checkpoints = result.get("checkpoints")
    if not isinstance(checkpoints, list) or not checkpoints or not isinstance(checkpoints[0], dict):
        return ""
    step = checkpoints[0].get("step")
    if type(step) is not int or step >= newest:
        return ""
    return f"Older than the run: made of checkpoint {step}, the newest is {newest}. Run the program again."


def title(result: dict[str, Any]) -> str:
    """Returns the title of a figure: the data, network and training of a result."""
    config = result["run"]
    parts = [dataset_name(config), result["network"]]
    parts += [f"{plural(config['epochs'], 'epoch')}"] if "epochs" in config else []
    parts += [f"mask ratio {config['ratio']:g}"] if "ratio" in config else []
    parts += [
        f"NOT FINISHED: checkpoint {read['step']} of {read['last']}"
        for read in result.get("checkpoints", [])
        if interrupted(read)
    ]
    return ", ".join(part for part in parts if part)

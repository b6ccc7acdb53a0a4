"""What the value of `--checkpoint` names: a folder, or a checkpoint by its name. Imports no JAX."""

import difflib
from pathlib import Path

from tna_jax.hf.cache import place
from tna_jax.hf.checkpoints import CHECKPOINTS, HUB
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.ranges import Rule


def problem(flag: str, checkpoint: str) -> str:
    """Returns what is wrong with a checkpoint, as far as its name says; empty if nothing is. Whether a folder holds a model is for loading to say."""
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


CHECKPOINT = Rule(problem)

"""What a client keeps from one message to the next. Flower starts a new process for each message, so it is a file.

One file for each client, replaced whole or not at all: the model it last trained from, and its memory (SCAFFOLD: c_k; FedDyn: h_k;
MOON: its last model; running statistics under the policy `local`) from before and from after its last round. Both, because only
the server knows whether the reply of that round was taken: if it was not, that round did not happen for the memory either.
Nothing in the file is ever executed. A file that is damaged, missing or of another federation is as good as none; a memory
without the digest that it was written with is lost (the model's digest comes from the server). Only its owner can read the file.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from tna_jax.federated import ClientState
from tna_jax.flower import wire
from tna_jax.flower.task import Task
from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import PRIVATE


class Held(NamedTuple):
    """What a client keeps."""

    federation: str
    """The server's name for this federation, drawn when it began."""
    version: int
    """Of the model."""
    model: Any
    """`{"params", "state"}`."""
    owns: dict[int, ClientState]
    """Memory by the round that it is from; `exchange.NEVER` before the first."""


class Store:
    """The file of one client."""

    def __init__(self, folder: Path, client: int):
        self.file = folder / f"client{client}.safetensors"

    def read(self, task: Task, federation: str, own: ClientState) -> Held | None:
        """What was kept for this federation, `None` if nothing sound is there. `own`: the memory's form."""
        try:
            arrays, metadata = safetensors.read(self.file)
            if metadata.get("federation") != federation:
                return None
            model = safetensors.fill(task.form(), arrays, "model")
            numbers = [int(number) for number in metadata["rounds"].split()]
            digests = dict(zip(numbers, metadata["digests"].split(), strict=True))
            owns = {number: safetensors.fill(own, arrays, f"own/{number}") for number in numbers}
            sound = {number: kept for number, kept in owns.items() if _digest(number, kept) == digests[number]}
            return Held(federation, int(metadata["version"]), model, sound)
        except (UsageError, KeyError, ValueError):
            return None

    def write(self, held: Held) -> None:
        """Replaces the file; raises UsageError where it cannot be written."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"cannot make the state folder {self.file.parent}: {error.strerror}") from error
        trees = {"model": held.model, "own": {str(number): own for number, own in held.owns.items()}}
        rounds = " ".join(map(str, held.owns))
        digests = " ".join(_digest(number, own) for number, own in held.owns.items())
        about = {"federation": held.federation, "version": str(held.version), "rounds": rounds, "digests": digests}
        safetensors.write(self.file, manifest.named(trees), about, PRIVATE)


def _digest(number: int, own: ClientState) -> str:
    return wire.digest({str(number): own})


def default_folder() -> Path:
    """Where clients keep their files if nothing else is said: `$XDG_STATE_HOME/tna_jax`, `~/.local/state/tna_jax`."""
    root = os.environ.get("XDG_STATE_HOME")
    return (Path(root) if root else Path.home() / ".local" / "state") / "tna_jax" / "flower"

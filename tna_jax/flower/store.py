"""What a client keeps from one message to the next. Flower starts a new process for each message, so it is a file.

One file for each client, replaced whole or not at all: the model it last trained from, and its memory (SCAFFOLD: c_k; FedDyn: h_k;
MOON: its last model; running statistics under the policy `local`) from before and from after its last round. Both, because only
the server knows whether the update of that round was accepted: if it was not, that round did not happen for the memory either.
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

MEMORY = "own"
"""What a client's states are called in the file: its format, not to be changed."""


class ClientRecord(NamedTuple):
    """What a client keeps."""

    federation: str
    """The server's name for this federation, drawn when it began."""
    version: int
    """Of the model."""
    model: Any
    """`{"params", "state"}`."""
    client_states: dict[int, ClientState]
    """Memory by the round that it is from; `protocol.NEVER` before the first."""


class Store:
    """The file of one client."""

    def __init__(self, folder: Path, client: int):
        self.file = folder / f"client{client}.safetensors"

    def read(self, task: Task, federation: str, like: ClientState) -> ClientRecord | None:
        """Returns what was kept for this federation, `None` if nothing sound is there. `like`: the form of a client's state."""
        try:
            arrays, metadata = safetensors.read(self.file)
            if metadata.get("federation") != federation:
                return None
            model = safetensors.fill(task.model_shapes(), arrays, "model")
            numbers = [int(number) for number in metadata["rounds"].split()]
            digests = dict(zip(numbers, metadata["digests"].split(), strict=True))
            client_states = {number: safetensors.fill(like, arrays, f"{MEMORY}/{number}") for number in numbers}
            sound = {
                number: state for number, state in client_states.items() if _digest(number, state) == digests[number]
            }
            return ClientRecord(federation, int(metadata["version"]), model, sound)
        except (UsageError, KeyError, ValueError):
            return None

    def write(self, record: ClientRecord) -> None:
        """Replaces the file; raises UsageError where it cannot be written."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(f"cannot make the state folder {self.file.parent}: {error.strerror}") from error
        trees = {"model": record.model, MEMORY: {str(number): state for number, state in record.client_states.items()}}
        rounds = " ".join(map(str, record.client_states))
        digests = " ".join(_digest(number, state) for number, state in record.client_states.items())
        about = {"federation": record.federation, "version": str(record.version), "rounds": rounds, "digests": digests}
        safetensors.write(self.file, manifest.named(trees), about, PRIVATE)


def _digest(number: int, client_state: ClientState) -> str:
    return wire.digest({str(number): client_state})


def default_folder() -> Path:
    """Returns where clients keep their files by default: `$XDG_STATE_HOME/tna_jax`, `~/.local/state/tna_jax`."""
    root = os.environ.get("XDG_STATE_HOME")
    return (Path(root) if root else Path.home() / ".local" / "state") / "tna_jax" / "flower"

"""What a deployed federation leaves with the server: `federation.json`, the model, and what it needs to go on after a stop."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax.flower.server import Coordinator
from tna_jax.flower.task import Task
from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import PRIVATE, read_json, to_json, write_json
from tna_jax.io.provenance import provenance

REPORT, MODEL, SERVER = "federation.json", "model.safetensors", "server.safetensors"
OWN = ("min-nodes", "min-replies", "start-timeout", "round-timeout", "evaluate-every", "out", "resume")
"""Settings of `tna_jax.flower.apps`, which are none of the federation: it may go on with other ones."""


class Results:
    """The server's folder; all of it is in memory only if there is none."""

    def __init__(self, folder: Path | None, config: dict[str, Any], task: Task, min_replies: int, resume: bool):
        """Makes the folder, or reads it.

        Raises:
          UsageError: it exists and `resume` is not set, or the other way round; it is of another run configuration, but for the
            settings in `OWN` and the number of rounds.
        """
        self.folder = folder
        self.rounds: list[dict[str, Any]] = []
        self.coordinator = Coordinator(task, min_replies)
        settings = {name: value for name, value in config.items() if name not in ("out", "resume")}
        self.about: dict[str, Any] = {"config": settings, "federation": self.coordinator.name}
        if folder is None:
            return
        if resume:
            self._read(folder, settings)
            return
        if (folder / REPORT).exists():
            raise UsageError(f"out {folder} holds a federation: name another folder, or set resume")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make out {folder}: {error.strerror}") from error
        self.about["provenance"] = provenance([task.seed])

    def _read(self, folder: Path, settings: dict[str, Any]) -> None:
        found = read_json(folder / REPORT)
        theirs, ours = found.get("config", {}), to_json(settings)
        differ = [name for name in sorted({*ours, *theirs} - {*OWN, "rounds"}) if ours.get(name) != theirs.get(name)]
        if differ:
            raise UsageError(f"out {folder} was made with other settings: {', '.join(differ)}")
        self.about |= {name: found[name] for name in ("federation", "provenance")}
        own = self.coordinator
        own.name = found["federation"]
        if (folder / SERVER).exists() or len(found["rounds"]) > 1:  # else it was stopped while the first round was kept
            arrays, about = safetensors.read(folder / SERVER)
            own.number, own.server = int(about["number"]), safetensors.fill(own.server, arrays, "server")
            own.ledger.taken = {int(client): number for client, number in zip(*arrays["taken"].tolist(), strict=True)}
        if own.task.rounds < own.number:
            raise UsageError(f"out {folder} has {own.number} rounds behind it, rounds is {own.task.rounds}")
        self.rounds = found["rounds"][: own.number]
        own.prepare()

    def add(self, report: dict[str, Any]) -> None:
        """Keeps the report of a round, and the server's state after it.

        The state is written last: a server that is stopped before that does the round again, and no report is missing.
        """
        self.rounds.append(to_json(report))
        if self.folder is None:
            return
        own = self.coordinator
        taken = np.array([[*own.ledger.taken], [*own.ledger.taken.values()]], np.int64).reshape(2, -1)
        state = manifest.named({"server": own.server})
        arrays = {**jax.tree.map(np.asarray, state), "taken": taken}
        write_json(self.folder / REPORT, {**self.about, "rounds": self.rounds}, mode=PRIVATE)
        safetensors.save(self.folder / MODEL, own.model, mode=PRIVATE)
        safetensors.write(self.folder / SERVER, arrays, {"number": str(own.number)}, PRIVATE)

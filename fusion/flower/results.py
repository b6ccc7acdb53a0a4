"""What a deployed federation leaves with the server: `federation.json`, the model, and what it needs to go on after a stop."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from fusion.flower.coordinator import Coordinator
from fusion.flower.task import Task
from train import manifest, tensors
from train.errors import UsageError
from train.results import plain, provenance, read_json, write_json

REPORT, MODEL, SERVER = "federation.json", "model.safetensors", "server.safetensors"


class Results:
    """The server's folder; all of it is in memory only if there is none."""

    def __init__(self, folder: Path | None, config: dict[str, Any], task: Task, min_replies: int, resume: bool):
        """Makes the folder, or reads it.

        Raises:
          UsageError: it exists and `resume` is not set, or the other way round; it is of another run configuration.
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
        if (theirs := found.get("config")) != plain(settings):
            differ = sorted(name for name in {*settings, *theirs} if settings.get(name) != theirs.get(name))
            raise UsageError(f"out {folder} was made with other settings: {', '.join(differ)}")
        self.about = {name: found[name] for name in ("config", "federation", "provenance")}
        self.rounds = found["rounds"]
        own = self.coordinator
        arrays, about = tensors.read(folder / SERVER)
        own.name, own.number = found["federation"], int(about["number"])
        own.server = tensors.fill(own.server, arrays, "server")
        own.ledger.taken = {int(client): number for client, number in zip(*arrays["taken"].tolist(), strict=True)}
        self.rounds = self.rounds[: own.number]
        own.prepare()

    def add(self, report: dict[str, Any]) -> None:
        """Keeps the report of a round, and the server's state after it."""
        self.rounds.append(plain(report))
        if self.folder is None:
            return
        own = self.coordinator
        taken = np.array([[*own.ledger.taken], [*own.ledger.taken.values()]], np.int64).reshape(2, -1)
        state = manifest.named({"server": own.server})
        tensors.write(
            self.folder / SERVER, {**jax.tree.map(np.asarray, state), "taken": taken}, {"number": str(own.number)}
        )
        tensors.save(self.folder / MODEL, own.model)
        write_json(self.folder / REPORT, {**self.about, "rounds": self.rounds})

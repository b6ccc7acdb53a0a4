"""What a deployed federation leaves with the server: `federation.json`, the model, and what it needs to resume."""

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
ACCEPTED = "taken"
"""What the ledger's column is called in the server's file: its format, not to be changed."""
SERVER_SETTINGS = ("min-nodes", "min-replies", "start-timeout", "round-timeout", "evaluate-every", "out", "resume")
"""Settings of `tna_jax.flower.apps`, which do not belong to the federation: it may be resumed with others."""


class Results:
    """The server's folder; all of it is in memory only if there is none."""

    def __init__(self, folder: Path | None, config: dict[str, Any], task: Task, min_replies: int, resume: bool):
        """Makes the folder, or reads it.

        Raises:
          UsageError: it exists and `resume` is not set, or the other way round; it is of another run configuration, but for the
            settings in `SERVER_SETTINGS` and the number of rounds.
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
        report = read_json(folder / REPORT)
        theirs, ours = report.get("config", {}), to_json(settings)
        differ = [
            name
            for name in sorted({*ours, *theirs} - {*SERVER_SETTINGS, "rounds"})
            if ours.get(name) != theirs.get(name)
        ]
        if differ:
            raise UsageError(f"out {folder} was made with other settings: {', '.join(differ)}")
        self.about |= {name: report[name] for name in ("federation", "provenance")}
        coordinator = self.coordinator
        coordinator.name = report["federation"]
        if (folder / SERVER).exists() or len(
            report["rounds"]
        ) > 1:  # else it was stopped while the first round was written
            arrays, about = safetensors.read(folder / SERVER)
            coordinator.number = int(about["number"])
            coordinator.server = safetensors.fill(coordinator.server, arrays, "server")
            accepted = zip(*arrays[ACCEPTED].tolist(), strict=True)
            coordinator.ledger.accepted = {int(client): number for client, number in accepted}
        if coordinator.task.rounds < coordinator.number:
            raise UsageError(
                f"out {folder} has {coordinator.number} rounds behind it, rounds is {coordinator.task.rounds}"
            )
        self.rounds = report["rounds"][: coordinator.number]
        coordinator.prepare()

    def add(self, report: dict[str, Any]) -> None:
        """Keeps the report of a round, and the server's state after it.

        The state is written last: a server that is stopped before that does the round again, and no report is missing.
        """
        self.rounds.append(to_json(report))
        if self.folder is None:
            return
        coordinator = self.coordinator
        accepted = np.array(
            [[*coordinator.ledger.accepted], [*coordinator.ledger.accepted.values()]], np.int64
        ).reshape(2, -1)
        state = manifest.named({"server": coordinator.server})
        arrays = {**jax.tree.map(np.asarray, state), ACCEPTED: accepted}
        write_json(self.folder / REPORT, {**self.about, "rounds": self.rounds}, mode=PRIVATE)
        safetensors.save(self.folder / MODEL, coordinator.model, mode=PRIVATE)
        safetensors.write(self.folder / SERVER, arrays, {"number": str(coordinator.number)}, PRIVATE)

"""A run is a folder: config.json, provenance.json, metrics.jsonl, checkpoints/, and the program's results."""

import datetime
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from train import hosts
from train.errors import UsageError
from train.results import plain, write_json

CONFIG, PROVENANCE, METRICS, CHECKPOINTS = "config.json", "provenance.json", "metrics.jsonl", "checkpoints"
PLAN = "plan.json"


class Run:
    """An open run folder. `Run.create` makes or reopens it; nothing else writes there."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def create(cls, out: str | None, name: str, results: tuple[str, ...], overwrite: bool, resume: bool) -> "Run":
        """Makes the folder, before anything expensive. Of several processes the first makes it, and all get its name.

        Args:
          out: the folder; `None` for `runs/NAME-TIME` (UTC).
          results: the files the program will write; `overwrite` removes these and the run's own, never anything else.
          resume: keep what is there.

        Raises:
          UsageError: the folder exists and neither option is given, is no run folder, or cannot be written.
        """
        problem = ""
        try:
            folder = cls._make(out, name, results, overwrite, resume) if hosts.leads() else Path()
        except UsageError as error:
            folder, problem = Path(), str(error)
        told = hosts.agree(f"!{problem}" if problem else str(folder))
        if told.startswith("!"):
            raise UsageError(told[1:])
        return cls(Path(told))

    @classmethod
    def _make(cls, out: str | None, name: str, results: tuple[str, ...], overwrite: bool, resume: bool) -> Path:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        folder = Path(out) if out else Path("runs") / f"{name}-{stamp}"
        if resume and not (folder / CONFIG).is_file():
            raise UsageError(f"--resume: {folder} is not a run folder (it has no {CONFIG})")
        if folder.exists() and not resume:
            if not folder.is_dir():
                raise UsageError(f"--out {folder} is a file; name a folder")
            if any(folder.iterdir()):
                if not (folder / CONFIG).is_file():
                    raise UsageError(f"--out {folder} exists and is not a run folder; name another one")
                if not overwrite:
                    raise UsageError(f"--out {folder} exists; name another one, or add --overwrite or --resume")
                cls(folder)._clear(results)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UsageError(f"cannot write to --out {folder}: {error.strerror or error}") from error
        return folder

    @classmethod
    def open(cls, name: str) -> "Run":
        """An existing run folder; raises UsageError if it is none."""
        if not (Path(name) / CONFIG).is_file():
            raise UsageError(f"{name} is not a run folder (it has no {CONFIG})")
        return cls(Path(name))

    def _clear(self, results: tuple[str, ...]) -> None:
        for name in (CONFIG, PROVENANCE, METRICS, PLAN, *results):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, absolute."""
        return (self.folder / CHECKPOINTS).resolve()

    def write(self, name: str, value: Any) -> Path:
        """Writes a JSON file of the run, whole or not at all; process 0 does."""
        if hosts.leads():
            write_json(self.folder / name, value)
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether the run holds a file of that name."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> Any:
        """Reads a JSON file of the run; raises UsageError where it cannot be read."""
        try:
            return json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {self.folder / name}: {error}") from error

    def log(self, **values: Any) -> None:
        """Appends one line to metrics.jsonl; process 0 does."""
        if not hosts.leads():
            return
        with open(self.folder / METRICS, "a") as file:
            file.write(json.dumps(plain(values), allow_nan=False) + "\n")

    def logged(self, before: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, those whose `step` is at least `before` left out (a resumed run does them again)."""
        file = self.folder / METRICS
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        return [line for line in lines if before is None or line["step"] < before]

    def keep_logged(self, before: int) -> None:
        """Drops the lines whose `step` is at least `before`; process 0 does."""
        if hosts.leads():
            kept = self.logged(before)
            (self.folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in kept))

"""A live view of a run, on request (`--log tensorboard,wandb`): what goes to metrics.jsonl is shown there as well.

A run's own log is metrics.jsonl; a view is a convenience. It is opened before training, so that what is missing is said then, and
one that fails later is given up with a warning: no run ends because of it. Process 0 alone has views.
"""

import contextlib
import hashlib
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli.progress import console

TENSORBOARD = "tensorboard"
FOLDERS = (TENSORBOARD, "wandb")
"""What views keep in a run folder."""


class View(Protocol):
    """Something that shows numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of one step."""

    def rewind(self, step: int) -> None:
        """The run goes on from `step`: what was shown from there on is void."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """Event files under RUN/tensorboard, written at once (TensorBoard's own writer does it in a thread, whose failure nobody sees)."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary, self.session = event_pb2.Event, summary_pb2.Summary, event_pb2.SessionLog
        home = folder / TENSORBOARD
        home.mkdir(exist_ok=True)
        number = len(list(home.iterdir()))
        self.file = open(home / f"events.out.tfevents.{int(time.time()):010d}.tna.{number}", "xb")  # noqa: SIM115
        self.writer = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        console.print(f"live: tensorboard --logdir {home}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As scalars."""
        scalars = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self.summary(value=scalars))

    def rewind(self, step: int) -> None:
        """As TensorBoard knows it: a new start of the session, before which later steps are orphans."""
        self._write(step=step, session_log=self.session(status=self.session.START))

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    def _write(self, **contents: Any) -> None:
        self.writer.write(self.event(wall_time=time.time(), **contents).SerializeToString())
        self.writer.flush()


class WandB:
    """Weights & Biases; `WANDB_MODE=offline` keeps all under RUN/wandb (`wandb sync` sends it). A resumed run has the same id."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        import wandb

        origin = (folder / "provenance.json").read_bytes()
        self.run = wandb.init(
            project="tna_jax", name=folder.resolve().name, dir=str(folder), config=dict(config), resume="allow",
            id=hashlib.sha256(origin).hexdigest()[:12], settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """By a step of our own: a resumed run repeats some, which wandb's must not."""
        self.run.log({"step": step, **values})

    def rewind(self, step: int) -> None:
        """Steps that come again are drawn over."""

    def close(self) -> None:
        """Waits until all is written, or sent."""
        self.run.finish()


VIEWS: dict[str, type] = {"tensorboard": TensorBoard, "wandb": WandB}


def chosen(option: str | None) -> list[str]:
    """The views that `--log` names.

    Raises:
      UsageError: one is unknown, or its package is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in (option or "").split(",") if name.strip()))
    for name in names:
        if name not in VIEWS:
            raise unknown("--log", name, VIEWS)
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--log {','.join(missing)}: not installed; pip install 'tna-jax[{','.join(missing)}]'")
    return names


class Trackers:
    """The open views of a run."""

    def __init__(self) -> None:
        self.open: dict[str, View] = {}

    def start(self, names: list[str], folder: Path, config: Mapping[str, Any]) -> None:
        """Opens views; raises UsageError for one that cannot be, after closing the others."""
        for name in names:
            try:
                self.open[name] = VIEWS[name](folder, config)
            except Exception as error:
                self.close()
                raise UsageError(f"--log {name}: {_first(error)}") from error

    def log(self, values: Mapping[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl, under the words in it: `pfn/accuracy`."""
        words = "".join(f"{value}/" for value in values.values() if isinstance(value, str))
        numbers = {words + name: float(value) for name, value in values.items() if name != "step" and _number(value)}
        if isinstance(values.get("step"), int) and numbers:
            self._each(lambda view: view.log(values["step"], numbers))

    def rewind(self, step: int) -> None:
        """The run goes on from `step`."""
        self._each(lambda view: view.rewind(step))

    def close(self) -> None:
        """Closes all."""
        self._each(lambda view: view.close())
        self.open.clear()

    def _each(self, call) -> None:
        for name, view in list(self.open.items()):
            try:
                call(view)
            except Exception as error:
                del self.open[name]
                console.print(f"warning: --log {name} failed and is given up, the run goes on: {_first(error)}")
                with contextlib.suppress(Exception):
                    view.close()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

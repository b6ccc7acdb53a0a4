"""Trackers that show a run live, on request (`--log tensorboard,wandb`): what goes to metrics.jsonl is shown there as well.

The log of a run is metrics.jsonl; a tracker is a convenience. It is opened before training, so that what is missing is said then;
one that fails later is closed with a warning: no run ends because of it. Process 0 alone has trackers.
"""

import contextlib
import hashlib
import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import console

TENSORBOARD = "tensorboard"
FOLDERS = (TENSORBOARD, "wandb")
"""What trackers keep in a run folder."""


class Tracker(Protocol):
    """Something that shows numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the numbers of one step."""

    def rewind(self, step: int) -> None:
        """Says that the run resumes from `step`: what was shown from there on is void."""

    def close(self) -> None:
        """Ends the tracking: nothing more will come."""


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
        """Shows the numbers as scalars."""
        scalars = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self.summary(value=scalars))

    def rewind(self, step: int) -> None:
        """Writes a new start of the session: TensorBoard takes later steps before it for orphans."""
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
        """Shows the numbers by the run's step: a resumed run repeats some, which the steps of wandb must not."""
        self.run.log({"step": step, **values})

    def rewind(self, step: int) -> None:
        """Does nothing: steps that come again are drawn over."""

    def close(self) -> None:
        """Ends the run. Offline, W&B's own process may still be writing the last records; the end of the program waits for it."""
        self.run.finish()


TRACKERS: dict[str, type] = {"tensorboard": TensorBoard, "wandb": WandB}


def chosen(option: str | None) -> list[str]:
    """Returns the trackers that `--log` names.

    Raises:
      UsageError: one is unknown, or its package is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in (option or "").split(",") if name.strip()))
    for name in names:
        if name not in TRACKERS:
            raise unknown("--log", name, TRACKERS)
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--log {','.join(missing)}: not installed; pip install 'tna-jax[{','.join(missing)}]'")
    return names


class Trackers:
    """The open trackers of a run."""

    def __init__(self) -> None:
        self.open: dict[str, Tracker] = {}

    def start(self, names: list[str], folder: Path, config: Mapping[str, Any]) -> None:
        """Opens trackers; raises UsageError for one that cannot be opened, after closing the others."""
        for name in names:
            try:
                self.open[name] = TRACKERS[name](folder, config)
            except Exception as error:
                self.close()
                raise UsageError(f"--log {name}: {_first_line(error)}") from error

    def log(self, values: Mapping[str, Any]) -> None:
        """Shows the numbers of a line of metrics.jsonl, named with the texts in it: `pfn/accuracy`."""
        prefix = "".join(f"{value}/" for value in values.values() if isinstance(value, str))
        numbers = {prefix + name: float(value) for name, value in values.items() if name != "step" and _number(value)}
        if isinstance(values.get("step"), int) and numbers:
            self._each(lambda tracker: tracker.log(values["step"], numbers))

    def rewind(self, step: int) -> None:
        """Says that the run resumes from `step`."""
        self._each(lambda tracker: tracker.rewind(step))

    def close(self) -> None:
        """Closes all trackers."""
        self._each(lambda tracker: tracker.close())
        self.open.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.open.items()):
            try:
                call(tracker)
            except Exception as error:
                del self.open[name]
                print_warning(f"--log {name} failed and is closed, the run continues: {_first_line(error)}")
                with contextlib.suppress(Exception):
                    tracker.close()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

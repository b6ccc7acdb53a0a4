"""Records an ensemble's training epoch by epoch: a line each, the models that diverged, checkpoints, a safe stop."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tna_jax.metrics import AnyMetrics
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import Stop, TrainingBar, console
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training.initial_models import InitialModels
from tna_jax.programs.training.streams import EpochCheckpoints
from tna_jax.streaming import Position


def initial_state(start: InitialModels, opt_state: Any) -> dict[str, Any]:
    """Returns what a checkpoint holds of M models before training, on the host.

    Args:
      start: the models.
      opt_state: that of one model, arrays or shapes.
    """
    models = start.data_keys.shape[0]
    return {
        "params": jax.tree.map(np.array, start.params),
        "opt_state": jax.tree.map(lambda x: np.zeros((models, *x.shape), x.dtype), opt_state),
        "state": jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], models, axis=0), start.state),
        "diverged": np.full(models, -1, np.int32),  # the first epoch with a non-finite loss
    }


def store(state: dict[str, Any], part: slice, members: Callable[..., Any], diverged: np.ndarray) -> None:
    """Copies a wave's members into their places among all in `state`, see `initial_state`."""
    members(jax.tree.map(lambda x: x[part], (state["params"], state["opt_state"], state["state"])))
    state["diverged"][part] = diverged


class EpochRecords:
    """Records all waves of one training.

    Its methods take the wave's number and its models, then what `train_ensemble` and `train_stream` call with: `members` copies
    the models to the host, into the arrays it is given.
    """

    def __init__(
        self,
        folder: Run,
        state: dict[str, Any],
        epochs: int,
        waves: int,
        saved: Checkpoints,
        in_epoch: EpochCheckpoints | None,
        bar: TrainingBar,
        stop: Stop,
    ) -> None:
        """Starts with `state`, see `initial_state`, which is kept up to date at every save and end of a wave.

        Args:
          epochs: of each wave; waves: their number.
          saved, in_epoch: where to save between epochs and, on a stream, inside one.
          bar: shows the progress; stop: says when to stop.
        """
        self.folder, self.state, self.epochs, self.steps = folder, state, epochs, waves * epochs
        self.saved, self.in_epoch, self.bar, self.stop = saved, in_epoch, bar, stop
        self.diverged = state["diverged"].copy()

    def epoch(self, wave: int, part: slice, epoch: int, members: Callable[..., Any], metrics: AnyMetrics) -> None:
        """Records an epoch (from 0) of a wave; raises `Interrupted` where a stop was requested, once all is saved."""
        step = wave * self.epochs + epoch + 1
        means = _means(metrics)
        speed = self.bar.epoch(means, part.stop - part.start)
        bad = part.start + np.flatnonzero(~np.isfinite(metrics.loss_sum))
        for model in bad[self.diverged[bad] < 0]:
            print_warning(f"model {model} diverged in epoch {epoch}; the others do not depend on it")
            self.diverged[model] = epoch
        self.folder.log(step=step - 1, epoch=epoch, wave=wave, **means, images_per_second=speed, diverged=bad)
        stopping = distributed.any_process(self.stop.asked)
        due = self.saved.due(step)
        save = step == self.steps or stopping or distributed.any_process(distributed.is_main_process() and due)
        if save or epoch + 1 == self.epochs:
            self._store(part, members)
        if save:
            self.saved.save(step, self.state)
        if stopping and step < self.steps:
            self.saved.wait()
            self._end(f"stopped after epoch {epoch + 1} of {self.epochs}")

    def part_of_epoch(self, wave: int, part: slice, position: Position, members: Callable[..., Any]) -> None:
        """Records where a wave is inside an epoch of a stream; raises `Interrupted` as `epoch` does."""
        assert self.in_epoch is not None
        self.bar.part(position.step / self.in_epoch.steps)
        stopping = distributed.any_process(self.stop.asked)
        due = distributed.is_main_process() and self.in_epoch.saved.due(-1)
        if not stopping and not distributed.any_process(due):
            return
        self._store(part, members)
        self.in_epoch.save(wave * self.epochs + position.epoch, position, part, self.state)
        if stopping:
            self._wait()
            where = f"epoch {position.epoch + 1} of {self.epochs}"
            self._end(f"stopped after {position.step} of {self.in_epoch.steps} steps of {where}")

    def _store(self, part: slice, members: Callable[..., Any]) -> None:
        self._wait()  # the arrays of `state` may be on their way to the disk
        store(self.state, part, members, self.diverged[part])

    def _wait(self) -> None:
        self.saved.wait()
        if self.in_epoch is not None:
            self.in_epoch.saved.wait()

    def _end(self, where: str) -> None:
        console.print(f"{where}; saved in {self.folder.folder}")
        console.print(f"to resume: tna resume {self.folder.quoted_path}")
        self.stop.asked = True
        self.stop.check()


def _means(metrics: AnyMetrics) -> dict[str, float]:
    """Computes the mean of each metric over the members that have not diverged, the loss first."""
    finite = np.isfinite(metrics.loss_sum)
    if not finite.any():
        return dict.fromkeys(metrics.names, float("nan"))
    return {name: float(metrics.value(name)[finite].mean()) for name in metrics.names}

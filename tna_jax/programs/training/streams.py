"""Training on data that is read from the disk: what it takes of the memory, and checkpoints inside an epoch, which may take hours."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import trees
from tna_jax.ensemble import Trainer
from tna_jax.programs.data.records import StreamedSplit
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import IN_EPOCH, Run
from tna_jax.programs.runs.restore import restore
from tna_jax.programs.system.memory import Estimate
from tna_jax.streaming import Position

HELD = 12
"""Batches in memory: read ahead by Grain, on their way to the devices, and being trained on."""
PART = 256
"""Steps between two moments at which a training can stop."""
ORDER = 4
"""Bytes of an example's place in a model's order."""


def shapes(split: StreamedSplit, batch_size: int, models: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the inputs and targets that are in memory at once."""
    x, y = (
        trees.shape_of(column, (HELD * models * batch_size, *column.shape[1:]))
        for column in (split.images, split.labels)
    )
    return x, y


def with_orders(estimate: Estimate, split: StreamedSplit, models: int) -> Estimate:
    """Returns the estimate of a training on a stream: with the orders, of this epoch and as they are drawn."""
    return estimate._replace(common=estimate.common + 2 * models * ORDER * len(split))


class Progress(NamedTuple):
    """Where a training is to start."""

    begin: int
    """Epochs of all waves that are done."""
    state: dict[str, Any]
    within: Position | None
    """Where in the next epoch."""


class EpochCheckpoints:
    """Checkpoints inside an epoch, beside those between epochs: the newest alone is kept, and none when the training is done.

    They are numbered by the steps of all epochs and waves.
    """

    def __init__(self, folder: Run, trainer: Trainer, models: int, examples: int, minutes: float) -> None:
        self.folder: Path = folder.folder.resolve() / IN_EPOCH
        self.steps = -(-examples // trainer.batch_size)
        self.zero = trainer.objective.zero()
        self.sums = [np.zeros(models) for _ in jax.tree.leaves(self.zero)]
        self.minutes = minutes

    def restore(self, begin: int, state: dict[str, Any]) -> Progress:
        """Reads the newest one, if it is of later than the epochs `begin` and their `state`; all processes must call it."""
        if not self.folder.is_dir():
            return Progress(begin, state, None)
        number, saved = restore(self.folder, {**state, "sums": self._named()})
        epochs, step = divmod(number, self.steps)
        if number <= begin * self.steps:
            return Progress(begin, state, None)
        self.sums = [np.array(saved["sums"][name]) for name in self._named()]
        return Progress(epochs, {name: saved[name] for name in state}, Position(epochs, step, self.zero))

    def open(self) -> "EpochCheckpoints":
        """Opens the folder for saving."""
        self.saved = Checkpoints(self.folder, self.minutes, None, 1)
        return self

    def __enter__(self) -> "EpochCheckpoints":
        self.open().saved.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.saved.__exit__(kind, error, trace)
        if kind is None and jax.process_index() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def position(self, within: Position, epoch: int, part: slice) -> Position:
        """Returns the position in `epoch` with the sums of the models `part`."""
        sums = jax.tree.unflatten(jax.tree.structure(self.zero), [values[part].copy() for values in self.sums])
        return Position(epoch, within.step, sums)

    def save(self, begun: int, position: Position, part: slice, state: dict[str, Any]) -> None:
        """Saves what is trained after `begun` epochs of all waves and the steps of `position`."""
        for values, leaf in zip(self.sums, jax.tree.leaves(position.sums), strict=True):
            values[part] = leaf
        self.saved.save(begun * self.steps + position.step, {**state, "sums": self._named()})

    def _named(self) -> dict[str, np.ndarray]:
        return {f"{i:02d}": values for i, values in enumerate(self.sums)}

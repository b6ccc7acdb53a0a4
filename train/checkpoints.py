"""The state of an ensemble on disk (orbax): saved in the background, restored bit for bit. No pickle."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tna_jax.ensemble import Members
from train.errors import UsageError


class Checkpoints:
    """The checkpoints of a run: parameters and optimizer states by the number of finished epochs.

    Masks, data orders and hyper-parameters are not saved: the run's configuration makes them again. Use as a context
    manager: leaving it waits for saves still being written.
    """

    def __init__(self, folder: Path, minutes: float):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, cleanup_tmp_directories=True)
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self.every = minutes * 60
        self.last = time.monotonic()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.manager.close()

    def due(self) -> bool:
        """Whether the last save is longer ago than asked for."""
        return time.monotonic() - self.last >= self.every

    def save(self, epochs_done: int, members: Members) -> None:
        """Saves the state after `epochs_done` epochs; raises RuntimeError if orbax does not take it."""
        if self.manager.latest_step() == epochs_done:
            return
        state = {"params": members.params, "opt_state": _leaves(members.opt_state)}
        if not self.manager.save(epochs_done, args=ocp.args.StandardSave(jax.tree.map(np.array, state))):
            raise RuntimeError(f"the checkpoint of epoch {epochs_done} was not saved")
        self.last = time.monotonic()

    def restore(self, members: Members) -> tuple[int, Members]:
        """The newest state put into `members` (freshly initialised), and its number of epochs; 0 and `members` if none.

        Raises:
          UsageError: the checkpoint does not fit the members.
        """
        epochs_done = self.manager.latest_step()
        if epochs_done is None:
            return 0, members
        template: Any = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            {"params": members.params, "opt_state": _leaves(members.opt_state)},
        )
        try:
            state = self.manager.restore(epochs_done, args=ocp.args.StandardRestore(template))
        except (ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UsageError(f"the checkpoint in {self.manager.directory} does not fit this run: {first}") from error
        structure: Any = jax.tree.structure(members.opt_state)
        opt_state = jax.tree.unflatten(structure, list(state["opt_state"].values())[: structure.num_leaves])
        return epochs_done, members._replace(params=state["params"], opt_state=opt_state)


def _leaves(tree: Any) -> dict[str, jax.Array]:
    """The leaves of an optimizer state under sortable names: its own structure holds empty nodes, which orbax refuses."""
    return {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))} or {"0000": jax.numpy.zeros(1)}

"""The state of an ensemble on disk (orbax): saved in the background, restored bit for bit. No pickle."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from train.errors import UsageError


class Checkpoints:
    """The checkpoints of a run: parameters, optimizer and norm states of all models, by the number of finished steps.

    Masks, data orders and hyper-parameters are not saved: the run's configuration makes them again. Of several processes
    all must make the same calls, on one shared folder. Use as a context manager: leaving it waits for saves still being
    written.
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

    def save(self, step: int, tree: dict[str, Any]) -> None:
        """Saves NumPy arrays (in a copy) as the state after `step`; raises RuntimeError if orbax does not take it."""
        if self.manager.latest_step() == step:
            return
        state = {name: _leaves(part) for name, part in tree.items()}
        if not self.manager.save(step, args=ocp.args.StandardSave(state)):
            raise RuntimeError(f"the checkpoint of step {step} was not saved")
        self.last = time.monotonic()

    def restore(self, tree: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The newest step and its state in the form of `tree`, NumPy; 0 and `tree` if there is none.

        Raises:
          UsageError: the checkpoint does not fit `tree`.
        """
        step = self.manager.latest_step()
        if step is None:
            return 0, tree
        template: Any = {name: _leaves(part) for name, part in tree.items()}
        try:
            found = self.manager.restore(step, args=ocp.args.StandardRestore(template))
        except (ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UsageError(f"the checkpoint in {self.manager.directory} does not fit this run: {first}") from error
        return step, {name: _filled(part, found[name]) for name, part in tree.items()}

    def restore_some(self, tree: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """As `restore`, of the parts that `tree` names; the others stay on disk."""
        step = self.manager.latest_step()
        if step is None:
            return 0, tree
        template: Any = {name: _leaves(part) for name, part in tree.items()}
        options = ocp.checkpoint_utils.construct_restore_args(template)
        arguments = ocp.args.PyTreeRestore(item=template, restore_args=options, partial_restore=True)
        try:
            found = self.manager.restore(step, args=arguments)
        except (ValueError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise UsageError(f"the checkpoint in {self.manager.directory} does not fit this run: {first}") from error
        wrong = [
            f"{name} {np.shape(found[name][key])} instead of {np.shape(leaf)}"
            for name, part in template.items()
            for key, leaf in part.items()
            if np.shape(found[name][key]) != np.shape(leaf)
        ]
        if wrong:
            raise UsageError(
                f"the checkpoint in {self.manager.directory} does not fit this run: {', '.join(wrong[:5])}"
            )
        return step, {name: _filled(part, found[name]) for name, part in tree.items()}


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    """The leaves under sortable names: the structure of an optimizer's state holds empty nodes, which orbax refuses."""
    return {f"{i:04d}": np.array(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))} or {"0000": np.zeros(1)}


def _filled(tree: Any, found: dict[str, np.ndarray]) -> Any:
    structure: Any = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, [np.array(leaf) for leaf in list(found.values())[: structure.num_leaves]])

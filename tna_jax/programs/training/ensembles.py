"""Trains an ensemble in a run folder: waves that fit the memory, a bar, a line per epoch, checkpoints, safe stops."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble, streaming
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import TrainingBar, stoppable
from tna_jax.programs.data.records import StreamedSplit
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.runs.restore import newest, restore
from tna_jax.programs.system import memory
from tna_jax.programs.training import streams
from tna_jax.programs.training.epoch_records import EpochRecords, initial_state
from tna_jax.programs.training.initial_models import Init, InitialModels
from tna_jax.programs.training.waves import plan


class Trained(NamedTuple):
    """M models after training, on the host."""

    params: Params
    state: State
    diverged: dict[int, int]
    """Models whose training loss became non-finite, with the first epoch (from 0) in which it did."""
    facts: dict[str, Any]
    """For the provenance: the placement used, memory predicted and taken."""


def train(
    trainer: Trainer,
    start: InitialModels,
    data: Any,
    settings: Any,
    folder: Run,
    described: list[dict[str, Any]],
    resume: bool,
) -> Trained:
    """Trains all models for `settings.epochs` epochs, or resumes from what the run folder holds.

    What does not fit into the memory at once trains in waves, one after the other: the numbers are the same.

    Args:
      trainer: the common part; start: the models.
      data: has `train`, the training examples (a `Dataset`, or whatever else has such a `Split`).
      settings: the options: epochs, checkpoints, memory.
      folder: the run folder, which gets plan.json, metrics.jsonl and checkpoints.
      described: what plan.json says of each model.
      resume: start from the newest checkpoint of the folder, if it has one.

    Raises:
      UsageError: not even one model fits, or the checkpoint does not.
      Interrupted: a stop was requested; everything is saved.
    """
    stream = data.train if isinstance(data.train, StreamedSplit) else None
    waves = plan(trainer, start, data.train, settings, folder, described, resume)
    trainer, epochs = waves.trainer, settings.epochs
    state = initial_state(start, waves.member.opt_state)
    begin, state = restore(folder.checkpoints, state) if resume else (0, state)
    in_epoch, within = None, None
    if stream is not None:
        models = start.data_keys.shape[0]
        in_epoch = streams.EpochCheckpoints(folder, trainer, models, len(stream), settings.checkpoint_minutes)
        if resume:
            begin, state, within = in_epoch.restore(begin, state)
    folder.keep_logged(begin)
    often = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with (
        Checkpoints(folder.checkpoints, *often) as saved,
        in_epoch or contextlib.nullcontext(),
        stoppable() if stream is None else stoppable("part of the epoch") as stop,
        TrainingBar(len(state["diverged"]), len(data.train.labels), epochs, begin, len(waves.parts)) as bar,
    ):
        records = EpochRecords(folder, state, epochs, len(waves.parts), saved, in_epoch, bar, stop)
        x, y = (jnp.asarray(data.train.images), jnp.asarray(data.train.labels)) if stream is None else (None, None)
        for number, part in enumerate(waves.parts):
            first = max(begin - number * epochs, 0)
            if first >= epochs:
                continue
            here = within if within is not None and within.epoch == number * epochs + first else None
            members = _members(trainer, start, state, part, resumed=first > 0 or here is not None)
            on_epoch = functools.partial(records.epoch, number, part)
            if stream is None:
                ensemble.train_ensemble(trainer, members, x, y, epochs, start=first, on_epoch=on_epoch)
                continue
            streaming.train_stream(
                trainer,
                members,
                stream,
                epochs,
                start=first,
                within=None if in_epoch is None or here is None else in_epoch.position(here, first, part),
                part=streams.PART,
                on_part=functools.partial(records.part_of_epoch, number, part),
                on_epoch=on_epoch,
            )
    diverged = {int(i): int(records.diverged[i]) for i in np.flatnonzero(records.diverged >= 0)}
    return Trained(state["params"], state["state"], diverged, {**waves.facts, "peak_bytes": memory.peak()})


def _members(
    trainer: Trainer, start: InitialModels, state: dict[str, Any], part: slice, resumed: bool
) -> ensemble.Members:
    """Returns a wave's models on the devices as `state` has them; the optimizers' state is a new one unless `resumed`."""
    params, opt_state, network_state, mask, hyper = jax.tree.map(
        lambda x: x[part], (state["params"], state["opt_state"], state["state"], start.mask, start.hyper or {})
    )
    members = ensemble.init_ensemble(trainer, params, start.data_keys[part], mask, hyper, state=network_state)
    return members._replace(opt_state=jax.tree.map(jnp.asarray, opt_state)) if resumed else members


def finished(folder: Run, init: Init) -> tuple[Params, State, list[dict[str, Any]], int]:
    """Reads the trained models of a run: parameters and state (M, ...), what plan.json says of each, the checkpoint's step.

    Args:
      folder: of a program that uses `train`.
      init: a key to the (params, state) of one model, which gives their form.

    Raises:
      UsageError: it is of another program, holds no checkpoint, or one that does not fit; or another run has taken its place.
    """
    described, _ = folder.plan()
    params, state = jax.eval_shape(init, jax.random.key(0))

    def empty(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.zeros((len(described), *x.shape), x.dtype), tree)

    try:
        step, saved = newest(folder.checkpoints, {"params": empty(params), "state": empty(state)})
    finally:  # of a run that is being replaced the checkpoints are damaged or gone
        folder.require_same()
    if not step:
        raise UsageError(f"{folder.folder} holds no checkpoint: its training has not saved one yet")
    return saved["params"], saved["state"], described, step

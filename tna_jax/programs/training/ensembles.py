"""Trains an ensemble in a run folder: waves that fit the memory, a bar, a line per epoch, checkpoints, safe stops."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import TrainingBar, console, stoppable
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import PLAN, Run
from tna_jax.programs.runs.restore import newest, restore
from tna_jax.programs.system import distributed, memory
from tna_jax.programs.training.initial_models import InitialModels


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
    """Trains all models for `settings.epochs` epochs, or goes on with what the run folder holds.

    What does not fit into the memory at once trains in waves, one after the other: the numbers are the same.

    Args:
      trainer: the common part; start: the models.
      data: has `train`, the training examples (a `Dataset`, or whatever else has such a `Split`).
      settings: the options: epochs, checkpoints, memory.
      folder: the run folder, which gets plan.json, metrics.jsonl and checkpoints.
      described: each model in words, for plan.json.
      resume: go on with the newest checkpoint of the folder, if it has one.

    Raises:
      UsageError: not even one model fits, or the checkpoint does not.
      Interrupted: a stop was asked for; everything is saved.
    """
    inputs, labels = data.train.images, data.train.labels
    models = start.order.shape[0]
    shapes = one_of(trainer, start)
    optimizer_state = shapes.opt_state
    placement = placement_lib.resolve(
        trainer.placement, functools.partial(ensemble.network_inputs, trainer), shapes, inputs[: trainer.batch_size]
    )
    trainer = dataclasses.replace(trainer, placement=placement)
    found = memory.estimate(trainer, shapes, inputs, labels)
    given = (trainer, shapes, models, found, inputs, labels)
    if distributed.broadcast_text(str(resume and folder.has(PLAN))) == "True":
        _, wave = folder.plan()  # steps are counted in waves: a resumed run keeps them
        predicted = memory.predict(*given, min(wave, models))
    else:
        wave, predicted = memory.plan_waves(*given, memory.available(settings.memory_limit))
        wave = int(distributed.broadcast_text(str(wave)))
        folder.write_plan(described, wave)
    before = memory.resident()
    memory.print_estimate(predicted, memory.checkpoint_bytes(models, found), before)
    waves = [slice(first, min(first + wave, models)) for first in range(0, models, wave)]
    if len(waves) > 1:
        free = memory.available(settings.memory_limit) / memory.GB
        console.print(f"{models} models do not fit into {free:.3g} GB at once: {len(waves)} waves of up to {wave}")
    whole = {
        "params": jax.tree.map(np.array, start.params),
        "opt_state": jax.tree.map(lambda x: np.zeros((models, *x.shape), x.dtype), optimizer_state),
        "state": jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], models, axis=0), start.state),
        "diverged": np.full(models, -1, np.int32),  # the first epoch with a non-finite loss
    }
    steps = len(waves) * settings.epochs

    begin, whole = restore(folder.checkpoints, whole) if resume else (0, whole)
    folder.keep_logged(begin)
    diverged = whole["diverged"].copy()
    often = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with (
        Checkpoints(folder.checkpoints, *often) as saved,
        stoppable() as stop,
        TrainingBar(models, len(labels), settings.epochs, begin, len(waves)) as bar,
    ):
        arrays = (jnp.asarray(inputs), jnp.asarray(labels))
        for number, part in enumerate(waves):
            first = max(begin - number * settings.epochs, 0)
            if first >= settings.epochs:
                continue
            cut = jax.tree.map(lambda x, part=part: x[part], whole)
            members = ensemble.init_ensemble(
                trainer,
                cut["params"],
                start.order[part],
                _part(start.mask, part),
                _part(start.hyper or {}, part),
                state=cut["state"],
            )
            if first:
                opt_state = jax.tree.map(jnp.asarray, cut["opt_state"])
                members = members._replace(opt_state=opt_state)

            def on_epoch(epoch, members, metrics, part=part, number=number):
                step = number * settings.epochs + epoch + 1
                loss, accuracy = _means(metrics)
                speed = bar.epoch(loss, accuracy, part.stop - part.start)
                bad = part.start + np.flatnonzero(~np.isfinite(metrics.loss_sum))
                for model in bad[diverged[bad] < 0]:
                    console.print(f"model {model} diverged in epoch {epoch}; the others do not depend on it")
                    diverged[model] = epoch
                folder.log(step=step - 1, epoch=epoch, wave=number, loss=loss, accuracy=accuracy,
                           images_per_second=speed, diverged=bad)  # fmt: skip
                stopping = distributed.any_process(stop.asked)
                due = saved.due(step)
                save = step == steps or stopping or distributed.any_process(distributed.is_main_process() and due)
                if save or epoch + 1 == settings.epochs:
                    saved.wait()  # the arrays of `whole` may be on their way to the disk
                    _store(whole, part, members, diverged[part])
                if save:
                    saved.save(step, whole)
                if stopping and step < steps:
                    saved.wait()
                    console.print(f"stopped after epoch {epoch + 1} of {settings.epochs}; saved in {folder.folder}")
                    console.print(f"to go on: tna resume {folder.quoted_path}")
                    stop.asked = True
                    stop.check()

            ensemble.train_ensemble(trainer, members, *arrays, settings.epochs, start=first, on_epoch=on_epoch)
    facts = {
        "placement": placement,
        "waves": len(waves),
        "predicted_bytes_per_model": {"kept": found.kept, "working": found.working},
        "predicted_bytes": predicted,
        "predicted_bytes_saving": memory.checkpoint_bytes(models, found),
        "resident_bytes_before": before,
        "peak_bytes": memory.peak(),
    }
    late = {int(i): int(diverged[i]) for i in np.flatnonzero(diverged >= 0)}
    return Trained(whole["params"], whole["state"], late, facts)


def one_of(trainer: Trainer, start: InitialModels) -> ensemble.Members:
    """One of the models before training, without the leading axis; shapes, but for its data order and state."""
    params, mask, hyper = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (start.params, start.mask, start.hyper or {})
    )
    opt_state = jax.eval_shape(lambda p, h: trainer.anchored_optimizer(h).init(p), params, hyper)
    return ensemble.Members(params, mask, opt_state, start.order[0], hyper, start.state)


def finished(folder: Run, init) -> tuple[Params, State, list[dict[str, Any]], int]:
    """The trained models of a run: parameters and state (M, ...) on the host, what plan.json says of each, the checkpoint read.

    Args:
      folder: a run of a program that uses `train`.
      init: a key to the (params, state) of one model, which gives their form.

    Raises:
      UsageError: the run is no such run, holds no checkpoint, or one that does not fit.
    """
    described, _ = folder.plan()
    params, state = jax.eval_shape(init, jax.random.key(0))

    def empty(tree):
        return jax.tree.map(lambda x: np.zeros((len(described), *x.shape), x.dtype), tree)

    step, found = newest(folder.checkpoints, {"params": empty(params), "state": empty(state)})
    if not step:
        raise UsageError(f"{folder.folder} holds no checkpoint: its training has not saved one yet")
    return found["params"], found["state"], described, step


def _part(tree, part: slice):
    return jax.tree.map(lambda x: x[part], tree)


def _store(whole: dict[str, Any], part: slice, members: Callable[..., Any], diverged: np.ndarray) -> None:
    """Copies a wave's members into their places among all."""
    members(jax.tree.map(lambda x: x[part], (whole["params"], whole["opt_state"], whole["state"])))
    whole["diverged"][part] = diverged


def _means(metrics) -> tuple[float, float]:
    """Loss and accuracy over the members that have not diverged."""
    finite = np.isfinite(metrics.loss_sum)
    if not finite.any():
        return float("nan"), float("nan")
    return float(metrics.loss[finite].mean()), float(metrics.accuracy[finite].mean())

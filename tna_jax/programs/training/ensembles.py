"""Trains an ensemble in a run folder: waves that fit the memory, a bar, a line per epoch, checkpoints, safe stops."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble, streaming, trees
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.programs.cli.progress import TrainingBar, console, stoppable
from tna_jax.programs.data.records import StreamedSplit
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import PLAN, Run
from tna_jax.programs.runs.restore import newest, restore
from tna_jax.programs.system import distributed, memory
from tna_jax.programs.training import streams
from tna_jax.programs.training.initial_models import Init, InitialModels
from tna_jax.streaming import Position


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
    models = start.data_keys.shape[0]
    stream = data.train if isinstance(data.train, StreamedSplit) else None
    inputs, labels = (
        (data.train.images, data.train.labels) if stream is None else streams.shapes(stream, trainer.batch_size, models)
    )
    shapes = member_shapes(trainer, start)
    optimizer_state = shapes.opt_state
    placement = placement_lib.resolve(
        trainer.placement,
        functools.partial(ensemble.network_inputs, trainer),
        shapes,
        _first(inputs, trainer.batch_size),
    )
    trainer = dataclasses.replace(trainer, placement=placement)
    estimate = memory.estimate(trainer, shapes, inputs, labels)
    if stream is not None:
        estimate = streams.with_orders(estimate, stream, models)
    ensemble_of = (trainer, shapes, models, estimate, inputs, labels)
    if distributed.broadcast_text(str(resume and folder.has(PLAN))) == "True":
        _, wave = folder.plan()  # steps are counted in waves: a resumed run keeps them
        predicted = memory.predict(*ensemble_of, min(wave, models))
    else:
        wave, predicted = memory.plan_waves(*ensemble_of, memory.available(settings.memory_limit))
        wave = int(distributed.broadcast_text(str(wave)))
        folder.write_plan(described, wave)
    before = memory.resident()
    memory.print_estimate(predicted, memory.checkpoint_bytes(models, estimate), before)
    waves = [slice(first, min(first + wave, models)) for first in range(0, models, wave)]
    if len(waves) > 1:
        free = memory.available(settings.memory_limit) / memory.GB
        console.print(f"{models} models do not fit into {free:.3g} GB at once: {len(waves)} waves of up to {wave}")
    saved_state = {
        "params": jax.tree.map(np.array, start.params),
        "opt_state": jax.tree.map(lambda x: np.zeros((models, *x.shape), x.dtype), optimizer_state),
        "state": jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], models, axis=0), start.state),
        "diverged": np.full(models, -1, np.int32),  # the first epoch with a non-finite loss
    }
    steps = len(waves) * settings.epochs

    begin, saved_state = restore(folder.checkpoints, saved_state) if resume else (0, saved_state)
    in_epoch, within = None, None
    if stream is not None:
        in_epoch = streams.EpochCheckpoints(folder, trainer, models, len(stream), settings.checkpoint_minutes)
        if resume:
            begin, saved_state, within = in_epoch.restore(begin, saved_state)
    folder.keep_logged(begin)
    diverged = saved_state["diverged"].copy()
    often = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with (
        Checkpoints(folder.checkpoints, *often) as saved,
        in_epoch or contextlib.nullcontext(),
        stoppable() if stream is None else stoppable("part of the epoch") as stop,
        TrainingBar(models, len(data.train.labels), settings.epochs, begin, len(waves)) as bar,
    ):
        x, y = (jnp.asarray(inputs), jnp.asarray(labels)) if stream is None else (None, None)
        for number, part in enumerate(waves):
            first = max(begin - number * settings.epochs, 0)
            if first >= settings.epochs:
                continue
            cut = jax.tree.map(lambda x, part=part: x[part], saved_state)
            members = ensemble.init_ensemble(
                trainer,
                cut["params"],
                start.data_keys[part],
                _part(start.mask, part),
                _part(start.hyper or {}, part),
                state=cut["state"],
            )
            if first or (within is not None and within.epoch == number * settings.epochs):
                opt_state = jax.tree.map(jnp.asarray, cut["opt_state"])
                members = members._replace(opt_state=opt_state)

            def on_epoch(
                epoch: int, members: Any, metrics: AnyMetrics, part: slice = part, number: int = number
            ) -> None:
                step = number * settings.epochs + epoch + 1
                means = _means(metrics)
                speed = bar.epoch(means, part.stop - part.start)
                bad = part.start + np.flatnonzero(~np.isfinite(metrics.loss_sum))
                for model in bad[diverged[bad] < 0]:
                    console.print(f"model {model} diverged in epoch {epoch}; the others do not depend on it")
                    diverged[model] = epoch
                folder.log(step=step - 1, epoch=epoch, wave=number, **means, images_per_second=speed, diverged=bad)
                stopping = distributed.any_process(stop.asked)
                due = saved.due(step)
                save = step == steps or stopping or distributed.any_process(distributed.is_main_process() and due)
                if save or epoch + 1 == settings.epochs:
                    _wait(saved, in_epoch)  # the arrays of `saved_state` may be on their way to the disk
                    _store(saved_state, part, members, diverged[part])
                if save:
                    saved.save(step, saved_state)
                if stopping and step < steps:
                    saved.wait()
                    console.print(f"stopped after epoch {epoch + 1} of {settings.epochs}; saved in {folder.folder}")
                    console.print(f"to resume: tna resume {folder.quoted_path}")
                    stop.asked = True
                    stop.check()

            def on_part(position: Position, members: Any, part: slice = part, number: int = number) -> None:
                assert stream is not None and in_epoch is not None
                bar.part(position.step / in_epoch.steps)
                stopping = distributed.any_process(stop.asked)
                due = distributed.is_main_process() and in_epoch.saved.due(-1)
                if not stopping and not distributed.any_process(due):
                    return
                _wait(saved, in_epoch)
                _store(saved_state, part, members, diverged[part])
                in_epoch.save(number * settings.epochs + position.epoch, position, part, saved_state)
                if stopping:
                    _wait(saved, in_epoch)
                    where = f"epoch {position.epoch + 1} of {settings.epochs}"
                    console.print(
                        f"stopped after {position.step} of {in_epoch.steps} steps of {where}; saved in {folder.folder}"
                    )
                    console.print(f"to resume: tna resume {folder.quoted_path}")
                    stop.asked = True
                    stop.check()

            if stream is None:
                ensemble.train_ensemble(trainer, members, x, y, settings.epochs, start=first, on_epoch=on_epoch)
                continue
            here = None
            if in_epoch is not None and within is not None and within.epoch == number * settings.epochs + first:
                here = in_epoch.position(within, first, part)
            streaming.train_stream(
                trainer,
                members,
                stream,
                settings.epochs,
                start=first,
                within=here,
                part=streams.PART,
                on_part=on_part,
                on_epoch=on_epoch,
            )
    facts = {
        "placement": placement,
        "waves": len(waves),
        "predicted_bytes_per_model": {"kept": estimate.kept, "working": estimate.working},
        "predicted_bytes": predicted,
        "predicted_bytes_saving": memory.checkpoint_bytes(models, estimate),
        "resident_bytes_before": before,
        "peak_bytes": memory.peak(),
    }
    late = {int(i): int(diverged[i]) for i in np.flatnonzero(diverged >= 0)}
    return Trained(saved_state["params"], saved_state["state"], late, facts)


def member_shapes(trainer: Trainer, start: InitialModels) -> ensemble.Members:
    """Returns one model before training, without the leading axis: shapes, but for its data key and state."""
    params, mask, hyper = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (start.params, start.mask, start.hyper or {})
    )
    opt_state = jax.eval_shape(trainer.init_optimizer, params, mask, hyper)
    return ensemble.Members(params, mask, opt_state, start.data_keys[0], hyper, start.state)


def finished(folder: Run, init: Init) -> tuple[Params, State, list[dict[str, Any]], int]:
    """Reads the trained models of a run: parameters and state (M, ...), what plan.json says of each, the checkpoint's step.

    Args:
      folder: of a program that uses `train`.
      init: a key to the (params, state) of one model, which gives their form.

    Raises:
      UsageError: it is of another program, holds no checkpoint, or one that does not fit.
    """
    described, _ = folder.plan()
    params, state = jax.eval_shape(init, jax.random.key(0))

    def empty(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.zeros((len(described), *x.shape), x.dtype), tree)

    step, saved = newest(folder.checkpoints, {"params": empty(params), "state": empty(state)})
    if not step:
        raise UsageError(f"{folder.folder} holds no checkpoint: its training has not saved one yet")
    return saved["params"], saved["state"], described, step


def _first(inputs: Any, count: int) -> Any:
    """The shapes of the first inputs."""
    return trees.shape_of(inputs, (min(count, inputs.shape[0]), *inputs.shape[1:]))


def _wait(saved: Checkpoints, in_epoch: "streams.EpochCheckpoints | None") -> None:
    saved.wait()
    if in_epoch is not None:
        in_epoch.saved.wait()


def _part(tree: Any, part: slice) -> Any:
    return jax.tree.map(lambda x: x[part], tree)


def _store(saved_state: dict[str, Any], part: slice, members: Callable[..., Any], diverged: np.ndarray) -> None:
    """Copies a wave's members into their places among all."""
    members(jax.tree.map(lambda x: x[part], (saved_state["params"], saved_state["opt_state"], saved_state["state"])))
    saved_state["diverged"][part] = diverged


def _means(metrics: AnyMetrics) -> dict[str, float]:
    """Computes the mean of each metric over the members that have not diverged, the loss first."""
    finite = np.isfinite(metrics.loss_sum)
    if not finite.any():
        return dict.fromkeys(metrics.names, float("nan"))
    return {name: float(metrics.value(name)[finite].mean()) for name in metrics.names}

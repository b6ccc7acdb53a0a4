"""Plans the waves in which an ensemble trains: where its models are placed, and how many of them fit the memory at once."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from tna_jax import ensemble, trees
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer
from tna_jax.programs.cli.progress import console
from tna_jax.programs.data.records import StreamedSplit
from tna_jax.programs.runs.folder import PLAN, Run
from tna_jax.programs.system import distributed, memory
from tna_jax.programs.training import streams
from tna_jax.programs.training.initial_models import InitialModels


class Waves(NamedTuple):
    """How M models train: one wave after the other, with the same numbers as all at once."""

    trainer: Trainer
    """With its placement resolved."""
    member: ensemble.Members
    """One model before training, without the leading axis: shapes, but for its data key and state."""
    parts: tuple[slice, ...]
    """The models of each wave."""
    facts: dict[str, Any]
    """For the provenance: the placement used, memory predicted and taken before."""


def plan(
    trainer: Trainer,
    start: InitialModels,
    split: Any,
    settings: Any,
    folder: Run,
    described: list[dict[str, Any]],
    resume: bool,
) -> Waves:
    """Plans the waves and writes plan.json, or reads its waves where a run is resumed; says so where memory is short.

    Args:
      trainer: the common part, with whatever placement was asked for; start: the models.
      split: the training examples: a `StreamedSplit`, or whatever else has `images` and `labels`.
      settings: the options: memory.
      folder: the run folder, which gets plan.json; described: what it says of each model.
      resume: read the waves from plan.json, if there is one.

    Raises:
      UsageError: not even one model fits.
    """
    models = start.data_keys.shape[0]
    stream = split if isinstance(split, StreamedSplit) else None
    inputs, labels = (
        (split.images, split.labels) if stream is None else streams.shapes(stream, trainer.batch_size, models)
    )
    member = member_shapes(trainer, start)
    network_inputs = functools.partial(ensemble.network_inputs, trainer)
    batch = trees.shape_of(inputs, (min(trainer.batch_size, inputs.shape[0]), *inputs.shape[1:]))
    placement = placement_lib.resolve(trainer.placement, network_inputs, member, batch)
    trainer = dataclasses.replace(trainer, placement=placement)
    estimate = memory.estimate(trainer, member, inputs, labels)
    if stream is not None:
        estimate = streams.with_orders(estimate, stream, models)
    ensemble_of = (trainer, member, models, estimate, inputs, labels)
    if distributed.broadcast_text(str(resume and folder.has(PLAN))) == "True":
        _, wave = folder.plan()  # steps are counted in waves: a resumed run keeps them
        predicted = memory.predict(*ensemble_of, min(wave, models))
    else:
        wave, predicted = memory.plan_waves(*ensemble_of, memory.available(settings.memory_limit))
        wave = int(distributed.broadcast_text(str(wave)))
        folder.write_plan(described, wave)
    before, saving = memory.resident(), memory.checkpoint_bytes(models, estimate)
    memory.print_estimate(predicted, saving, before)
    parts = tuple(slice(first, min(first + wave, models)) for first in range(0, models, wave))
    if len(parts) > 1:
        free = memory.available(settings.memory_limit) / memory.GB
        console.print(f"{models} models do not fit into {free:.3g} GB at once: {len(parts)} waves of up to {wave}")
    facts = {
        "placement": placement,
        "waves": len(parts),
        "predicted_bytes_per_model": {"kept": estimate.kept, "working": estimate.working},
        "predicted_bytes": predicted,
        "predicted_bytes_saving": saving,
        "resident_bytes_before": before,
    }
    return Waves(trainer, member, parts, facts)


def member_shapes(trainer: Trainer, start: InitialModels) -> ensemble.Members:
    """Returns one model before training, without the leading axis: shapes, but for its data key and state."""
    params, mask, hyper = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (start.params, start.mask, start.hyper or {})
    )
    opt_state = jax.eval_shape(trainer.init_optimizer, params, mask, hyper)
    return ensemble.Members(params, mask, opt_state, start.data_keys[0], hyper, start.state)

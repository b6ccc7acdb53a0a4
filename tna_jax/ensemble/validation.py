"""What must fit before training starts, and what a step is made of."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from tna_jax import labels as labels_lib
from tna_jax import networks, objectives, program_cache
from tna_jax import placement as placement_lib
from tna_jax.ensemble.members import Members, count_examples, member_shapes
from tna_jax.ensemble.trainer import Trainer
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement


def check_epoch(epoch: Any) -> None:
    """Raises ValueError unless an epoch has a whole number, 0 or more: data orders are drawn by it, and fractions would be cut."""
    traced = isinstance(epoch, jax.core.Tracer)
    if not traced and not (
        np.ndim(epoch) == 0 and np.issubdtype(np.asarray(epoch).dtype, np.integer) and 0 <= epoch < 2**31
    ):
        raise ValueError(f"an epoch has a whole number, 0 or more; got {epoch!r}")


def check_epochs(start: Any, epochs: Any) -> None:
    """Raises ValueError unless epochs count up from `start`."""
    if not 0 <= start <= epochs:
        raise ValueError(
            f"epochs counts from 0 and is where to stop: from epoch {start} to {epochs} there is nothing to train"
        )


def check_training_data(trainer: Trainer, members: Members, inputs: Any, labels: Any) -> None:
    """Raises ValueError where the members cannot train on the data: shared inputs and labels, or their own."""
    if not members.member_data:
        return check_data(inputs, labels, trainer.batch_size, trainer.objective)
    if inputs is not None or labels is not None:
        raise ValueError("these members have their own data: give None for inputs and labels")
    inputs, labels = member_shapes(members.member_data)
    check_data(inputs, labels, trainer.batch_size, trainer.objective)


def check_classes(trainer: Trainer, members: Members, inputs: Any, labels: Any) -> None:
    """Raises ValueError for labels that the network has no output for; those that `prepare` makes are not known here."""
    if not trainer.objective.classes or trainer.prepare is not None:
        return
    outputs = program_cache.output_shapes(
        functools.partial(network_inputs, trainer), member_shapes(members), inputs, labels
    )
    values = labels_lib.on_host(members.member_data[1] if members.member_data else labels)
    if values is not None and hasattr(outputs, "shape"):
        labels_lib.check_labels(values.reshape(-1), values.size, classes=outputs.shape[-1])


def check_data(inputs: Any, labels: Any, batch_size: int, objective: Objective = CLASSIFICATION) -> None:
    """Raises ValueError where inputs (N, ...), labels (N,) or other targets (N, ...), and the batch size do not go together."""
    objectives.check_batch_size(batch_size)
    examples = objectives.check_examples(objective, inputs, labels)
    if not 1 <= batch_size <= examples:
        raise ValueError(f"a batch of {batch_size} examples needs as many, but the data has {examples}")


def resolve(trainer: Trainer, members: Members, inputs: Any, labels: Any = None) -> Placement:
    """Returns the placement that the trainer's stands for with these members, inputs and targets (arrays or shapes; by default labels)."""
    if trainer.placement != "auto":
        return placement_lib.resolve(trainer.placement, None)
    output = functools.partial(network_inputs, trainer)
    return placement_lib.resolve("auto", output, member_shapes(members), inputs, labels)


def network_inputs(trainer: Trainer, member: Members, inputs: Any, labels: Any = None) -> PyTree[Float[Array, "..."]]:
    """Computes the network's output on one prepared batch: what is traced to see what a step is made of."""
    if member.member_data:
        inputs, labels = member.member_data
    elif labels is None:
        labels = jnp.zeros(count_examples(inputs), jnp.int32)
    batch = jax.tree.map(lambda x: x[: trainer.batch_size], (inputs, labels))
    if trainer.prepare is not None:
        weight = jnp.ones(trainer.batch_size, jnp.float32)
        batch = trainer.prepare(member.data_keys, member.hyper, (*batch, weight))[:2]
    return networks.evaluate(trainer.network, member.params, member.state, batch[0])

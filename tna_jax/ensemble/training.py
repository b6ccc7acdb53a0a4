"""Many epochs of all members, on all devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree, Shaped

from tna_jax import placement as placement_lib
from tna_jax import sharding
from tna_jax.ensemble.epochs import train_epoch
from tna_jax.ensemble.members import Members, trained_part, with_trained
from tna_jax.ensemble.trainer import Trainer
from tna_jax.ensemble.validation import check_classes, check_epochs, check_training_data
from tna_jax.metrics import AnyMetrics


@sharding.outside_meshes
def train_ensemble(
    trainer: Trainer,
    members: Members,
    inputs: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    labels: PyTree[Shaped[Array | np.ndarray, "..."]] | None,
    epochs: int,
    *,
    start: int = 0,
    on_epoch: Callable[[int, Callable[..., Members], Any], None] | None = None,
) -> tuple[Members, list[AnyMetrics]]:
    """Trains M members for epochs `start` ... `epochs - 1` on all devices, or on M of them where there are more; with `papa` on one.

    M need not be a multiple of the number of devices: the last member is repeated and cut off again.

    Args:
      trainer, members, inputs, labels: as in `train_epoch`; the members need not be placed.
      epochs: where to stop, counted from epoch 0.
      start: the first epoch to train.
      on_epoch: called after each epoch with its number, a function that returns the members as they are now (a copy on the
        host, so call it when a checkpoint is due only), and the epoch's metrics. The function takes the NumPy arrays to copy
        into, if there are any: (parameters, optimizer state, state), (M, ...) each.

    Returns:
      The members, and the metrics of each epoch with leaves (M,), NumPy. What was trained is NumPy too where M is not a
      multiple of the devices.

    Raises:
      ValueError: as `train_epoch`; labels that the network has no output for; epochs that do not count up from `start`.
    """
    check_epochs(start, epochs)
    check_training_data(trainer, members, inputs, labels)
    check_classes(trainer, members, inputs, labels)
    count = members.data_keys.shape[0]
    mesh = placement_lib.mesh_for(count) if trainer.papa is None else placement_lib.mesh(jax.devices()[:1])
    padded = placement_lib.pad(members, mesh.size)
    current = placement_lib.shard(placement_lib.copied(padded), mesh)
    inputs, labels = placement_lib.replicate((inputs, labels), mesh)

    def on_host(into: tuple[Any, Any, Any] | None = None) -> Members:
        return to_host(members, current, into)

    history = []
    for epoch in range(start, epochs):
        current, sums = train_epoch(trainer, current, inputs, labels, epoch, donate=True)
        history.append(jax.tree.map(lambda x: x[:count], placement_lib.to_host(sums)))
        if on_epoch is not None:
            on_epoch(epoch, on_host, history[-1])
    return (on_host() if count % mesh.size else current), history


def to_host(members: Members, current: Members, into: tuple[Any, Any, Any] | None = None) -> Members:
    """Returns `members` as they are in training now: parameters, optimizer states and states on the host, without the padding.

    Args:
      members: M members, as they were before the training.
      current: the same, padded and placed.
      into: NumPy arrays to copy into: (parameters, optimizer state, state), (M, ...) each.
    """
    if into is not None:
        placement_lib.fetch_into(trained_part(current), into)
        return with_trained(members, into)
    # Not by slicing on the devices: that needs communication, which CPU devices that share a core may never finish.
    count = members.data_keys.shape[0]
    return with_trained(members, jax.tree.map(lambda x: x[:count], placement_lib.to_host(trained_part(current))))

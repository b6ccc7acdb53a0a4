"""The objective of a run (`--objective`), and whether data and network fit it: said before training, in one line."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import networks
from tna_jax.io.errors import UsageError
from tna_jax.networks import Network
from tna_jax.objectives import BY_NAME, IGNORED_PIXEL, IGNORED_TOKEN, Objective
from tna_jax.programs.data import Dataset


class Form(NamedTuple):
    """What an objective needs."""

    targets: str
    outputs: str
    axes: int | None
    """Of the targets, the examples' included; None: any."""
    kind: Any
    """Of the targets' dtype; None: any."""
    ignore: int | None = None
    classes: bool = True
    """Whether targets are indices into the last axis of the outputs."""


TOKENS = Form("integer tokens (N, T)", "logits (N, T, V)", 2, np.integer, IGNORED_TOKEN)
FORMS = {
    "classification": Form("integer labels (N,)", "logits (N, C)", 1, np.integer),
    "next-token": TOKENS,
    "masked-lm": TOKENS,
    "segmentation": Form("integer labels (N, H, W)", "logits (N, H, W, C)", 3, np.integer, IGNORED_PIXEL),
    "regression": Form("floating-point values (N, ...)", "the same shape", None, np.floating, classes=False),
    "multi-label": Form("0 and 1 (N, L)", "logits (N, L)", 2, None, classes=False),
}


def objective_of(settings: Any) -> Objective:
    """Returns the objective that the options name."""
    return BY_NAME[getattr(settings, "objective", "classification")]()


def check_fit(settings: Any, data: Dataset, network: Network, init: Any) -> None:
    """Raises UsageError where the targets of the data, or the outputs of the network, are not what the objective needs."""
    name = getattr(settings, "objective", "classification")
    objective, form = BY_NAME[name](), FORMS[name]
    needs = f"--objective {name} needs targets that are {form.targets} and outputs that are {form.outputs}"
    for split, part in (("train", data.train), ("test", data.test)):
        targets = jax.tree.leaves(part.labels)
        have = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in targets)
        if len(targets) != 1 or (form.axes is not None and targets[0].ndim != form.axes):
            raise UsageError(f"{needs}; the {split} targets of {data.name} are {have}")
        if form.kind is not None and not np.issubdtype(targets[0].dtype, form.kind):
            raise UsageError(f"{needs}; the {split} targets of {data.name} are {have}")
        if np.issubdtype(targets[0].dtype, np.floating) and not np.isfinite(targets[0]).all():
            raise UsageError(f"--dataset {data.name}: {split} targets that are not finite")
        if name == "multi-label" and not np.isin(targets[0], (0, 1)).all():
            raise UsageError(f"{needs}; {data.name} has other {split} targets than 0 and 1")
    batch = jax.tree.map(lambda leaf: leaf[:2], (data.train.images, data.train.labels))
    params, state = jax.eval_shape(init, jax.random.key(0))
    outputs: Any = jax.eval_shape(lambda p, s, x: networks.evaluate(network, p, s, x), params, state, batch[0])
    shapes = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(outputs))
    weight = jnp.ones(len(jax.tree.leaves(batch[1])[0]), jnp.float32)
    try:
        jax.eval_shape(objective.sums, outputs, batch[1], weight)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"{needs}; for 2 examples the network returns {shapes}, the targets are "
                         f"{' '.join(map(str, np.shape(batch[1])))}") from error  # fmt: skip
    if form.classes and len(outputs.shape) != batch[1].ndim + 1:
        raise UsageError(f"{needs}; for 2 examples the network returns {shapes}, the targets are {batch[1].shape}")
    if form.classes:
        _check_range(data, outputs.shape[-1], form.ignore)


def _check_range(data: Dataset, classes: int, ignore: int | None) -> None:
    """Raises UsageError for targets that are no index into the outputs."""
    for split, part in (("train", data.train), ("test", data.test)):
        counted = part.labels[part.labels != ignore] if ignore is not None else part.labels
        low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
        if low < 0 or high >= classes:
            raise UsageError(
                f"--model: the network returns {classes} numbers for each target, and the {split} targets of {data.name} go "
                f"from {low} to {high}: it must return {high + 1} or more"
            )

"""The objective of a run (`--objective`), and whether data and network fit it: said before training, in one line."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import networks, program_cache
from tna_jax.io.errors import UsageError
from tna_jax.networks import Network
from tna_jax.objectives import BY_NAME, IGNORED_PIXEL, IGNORED_TOKEN, Objective
from tna_jax.programs.data import Dataset
from tna_jax.programs.data.records import StreamedSplit
from tna_jax.programs.training import own_objectives

OUT_OF_FORM = (ValueError, TypeError, AttributeError, IndexError)
"""What a shipped objective raises of outputs and targets that do not fit it."""


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
OWN = Form("", "", None, None, classes=False)
"""Of an objective of the user's own nothing is known but that its loss runs."""


def objective_of(settings: Any) -> Objective:
    """Returns the objective that the options name, of this library or of the user's own.

    Raises:
      UsageError: options that it does not have; see `own_objectives` for the user's own.
    """
    if getattr(settings, "own_objective", False):
        return own_objectives.build(settings)
    objective: Objective = BY_NAME[getattr(settings, "objective", "classification")](**_arguments(settings))
    return objective


def objective_arguments(settings: Any) -> dict[str, Any]:
    """Returns the options of the objective; of a shipped one also those that were not set, with their defaults."""
    parameters = {} if settings.own_objective else inspect.signature(BY_NAME[settings.objective]).parameters
    return {name: parameter.default for name, parameter in parameters.items()} | _arguments(settings)


def _arguments(settings: Any) -> dict[str, Any]:
    return getattr(settings, "objective_arguments", {})


def _form(settings: Any) -> Form:
    """What the objective needs, with the target that does not count."""
    form = FORMS.get(getattr(settings, "objective", "classification"), OWN)
    return form._replace(ignore=_arguments(settings).get("ignore", form.ignore))


def check_fit(settings: Any, data: Dataset, network: Network, init: Any) -> None:
    """Raises UsageError where the targets of the data, or the outputs of the network, are not what the objective needs."""
    name = getattr(settings, "objective", "classification")
    objective, form = objective_of(settings), _form(settings)
    needs = f"--objective {name} needs targets that are {form.targets} and outputs that are {form.outputs}"
    needs = (
        needs if form.targets else f"--objective {name}: its loss and metrics do not go with the data and the network"
    )
    for split, part in (("train", data.train), ("test", data.test)):
        part = part.head() if isinstance(part, StreamedSplit) else part
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
    params, state = program_cache.output_shapes(init, jax.random.key(0))
    outputs: Any = jax.eval_shape(lambda p, s, x: networks.evaluate(network, p, s, x), params, state, batch[0])
    shapes = ", ".join(f"{leaf.dtype} {leaf.shape}" for leaf in jax.tree.leaves(outputs))
    weight = jnp.ones(len(jax.tree.leaves(batch[1])[0]), jnp.float32)
    try:
        jax.eval_shape(objective.sums, outputs, batch[1], weight)
    except Exception as error:
        if not getattr(settings, "own_objective", False) and not isinstance(error, OUT_OF_FORM):
            raise
        have = f"for 2 examples the network returns {shapes}, the targets are {np.shape(batch[1])}"
        raise UsageError(f"{needs}; {have}{own_objectives.line(settings, error)}") from error
    if form.classes and len(outputs.shape) != batch[1].ndim + 1:
        raise UsageError(f"{needs}; for 2 examples the network returns {shapes}, the targets are {batch[1].shape}")
    if form.classes:
        _check_range(data, outputs.shape[-1], form.ignore)


def _check_range(data: Dataset, classes: int, ignore: int | None) -> None:
    """Raises UsageError for targets that are no index into the outputs."""
    for split, part in (("train", data.train), ("test", data.test)):
        if isinstance(part, StreamedSplit):
            _check_outputs(data, split, classes, *part.range(ignore))
            continue
        counted = part.labels[part.labels != ignore] if ignore is not None else part.labels
        if not counted.size:
            raise UsageError(f"--dataset {data.name}: no {split} target counts: all are {ignore}, which is ignored")
        _check_outputs(data, split, classes, int(counted.min()), int(counted.max()))


def _check_outputs(data: Dataset, split: str, classes: int, low: int, high: int) -> None:
    if low < 0 or high >= classes:
        raise UsageError(
            f"--model: the network returns {classes} numbers for each target, and the {split} targets of {data.name} go "
            f"from {low} to {high}: it must return {high + 1} or more"
        )

"""Curved paths between the models of a run, trained by `--curve-epochs`: what the barriers of the straight lines are read against."""

from typing import Any

import jax
import numpy as np
import optax

from tna_jax import augment, curves, prng
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.networks import Network, State
from tna_jax.objectives import Objective
from tna_jax.programs.barrier.options import BarrierOptions
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.data import Dataset
from tna_jax.programs.population.paths import models_that_fit, path_of, path_row
from tna_jax.programs.training.splits import splits, streamed, training_inputs

KIND = "curved"
COPIES = 12
"""Models that training a bend takes: both ends, the bend, its mask, the moments of Adam, the model at a position, gradients; rounded up."""
BATCH = 128
"""Examples of a step where the run was not trained in batches (ours)."""


def check(settings: BarrierOptions, data: Dataset) -> None:
    """Raises UsageError for data on which no curve can be trained."""
    if settings.curve_epochs is not None and streamed(data):
        raise UsageError("--curve-epochs trains on examples in memory, and those of this run are read from the disk")


def measure(
    settings: BarrierOptions,
    config: dict[str, Any],
    data: Dataset,
    network: Network,
    objective: Objective,
    params: Params,
    state: State,
    pairs: np.ndarray,
    alphas: np.ndarray,
    names: list[str],
) -> list[dict[str, Any]]:
    """Trains the bend of each pair's curve by Adam, and returns a row for each pair and split.

    Args:
      settings: how long and at which rate.
      config: of the run, whose batch size and augmentation are used.
      data, network, objective: those of the run.
      params, state: (M, ...) on the host.
      pairs: (P, 2).
      alphas: (A,) positions on the curves.
      names: of the measures.
    """
    examples = len(data.train.labels)
    trainer = Trainer(
        network, optax.adam(settings.curve_learning_rate), min(config.get("batch_size", BATCH), examples), settings.placement,
        augment.create(config.get("augment", "none")), objective=objective,
    )  # fmt: skip
    by_name, calibration = splits(data), training_inputs(data, settings.calibration_examples)
    inputs, targets = by_name["train"]
    key = prng.stream(0, prng.Stream.RUN_CURVE)
    rows = []
    for group in groups(pairs, models_that_fit(params, state, settings.memory_limit)):
        with console.status(f"training the bends of {plural(len(group), 'curve')}") as status:

            def tell(epoch: int, *_: Any, status: Any = status, group: np.ndarray = group) -> None:
                status.update(f"training the bends of {plural(len(group), 'curve')}: epoch {epoch + 1} of {settings.curve_epochs}")  # fmt: skip

            keys = jax.vmap(lambda pair: jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1]))(group)
            bends = curves.train_bends(
                keys, trainer, params, group, inputs, targets, settings.curve_epochs or 0, state=state, on_epoch=tell
            )
        with console.status(f"evaluating {plural(len(group), 'curve')} of {len(alphas)} points"):
            paths = curves.evaluate_curves(
                network, params, bends, group, alphas, by_name, state=state, calibration=calibration, objective=objective,
                placement=settings.placement,
            )  # fmt: skip
        off = curves.deflection(params, bends, group)
        for split, path in paths.items():
            rows += [
                {**path_row(pair, KIND, split, path_of(path, i), names), "deflection": off[i]}
                for i, pair in enumerate(group)
            ]
    return rows


def groups(pairs: np.ndarray, models: int) -> list[np.ndarray]:
    """Cuts the pairs (P, 2), in their order, into groups whose bends train where `models` models have room; one pair always trains."""
    size = max(1, models // COPIES)
    return [pairs[first : first + size] for first in range(0, len(pairs), size)]

"""Every fusion of a population of models: best single model, mean, uniform and greedy soup, ensemble of logits."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity, networks, streaming
from tna_jax.averaging import GreedySoup, Ties, greedy_recipe
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.metrics import AnyMetrics, Metrics
from tna_jax.networks import Network, State
from tna_jax.objectives import CLASSIFICATION, Objective
from tna_jax.placement import Placement

Data = Mapping[str, tuple[Any, Any]]
"""Inputs (N, ...) and labels (N,), or other targets (N, ...), by the name of the split."""
Mix = Callable[[np.ndarray, Data], dict[str, AnyMetrics]]
"""Weights (T, M), sum 1 each, and data to the metrics (T,) of the T averages."""


class Fusions(NamedTuple):
    """Metrics by split. All but `members` are of one model each."""

    members: dict[str, AnyMetrics]
    """Leaves (M,)."""
    best: int
    """The model with the best held-out score."""
    uniform: dict[str, AnyMetrics]
    greedy: dict[str, AnyMetrics]
    recipe: GreedySoup
    """Of the greedy soup."""
    ensemble: dict[str, AnyMetrics]
    """The mean of all members' logits, or other outputs."""
    averages: dict[int, dict[str, AnyMetrics]] | None = None
    """Averages of the k models with the best held-out scores, by k: more than one, and not all."""


def fuse(
    network: Network,
    members: Params,
    data: Data,
    held_out: tuple[Any, Any],
    mix: Mix,
    *,
    state: State = (),
    ties: Ties = "keep",
    placement: Placement = "auto",
    batch_size: int = 1000,
    objective: Objective = CLASSIFICATION,
    chosen_by: str | None = None,
) -> Fusions:
    """Computes all fusions of M models.

    Args:
      network, members, state: (M, ...).
      data: what is reported.
      held_out: examples by whose metric the best model and the greedy soup are chosen.
      mix: evaluates averages by the same objective, see `mixtures` and `tna_jax.programs.population.repairs`.
      ties: of the greedy soup.
      batch_size: examples per forward pass.
      objective: what is measured.
      chosen_by: the metric that chooses; default: accuracy for classification, else the loss.

    Raises:
      ValueError: a metric that the objective does not have.
    """
    metric = objective.metric(chosen_by or ("accuracy" if objective.classes else "loss"))
    count = jax.tree.leaves(members)[0].shape[0]
    alone = connectivity.evaluate(
        network,
        members,
        {**data, "held out": held_out},
        state=state,
        objective=objective,
        batch_size=batch_size,
        placement=placement,
    )
    scores = _scores(alone["held out"], metric.name)
    if not np.isfinite(scores).any():  # all diverged: the first one stands for them
        scores = alone["held out"].value(metric.name)

    def score(weights: np.ndarray) -> float:
        return float(_scores(mix(weights[None] / weights.sum(), {"held out": held_out})["held out"], metric.name)[0])

    recipe = greedy_recipe(scores, score, ties, metric.larger_is_better)
    soups = np.stack([np.full(count, 1 / count, np.float32), recipe.weights / recipe.weights.sum()])
    fused = mix(soups, data)
    uniform, greedy = (
        {split: jax.tree.map(lambda x, i=i: x[i], pair) for split, pair in fused.items()} for i in (0, 1)
    )
    ensemble = output_ensemble(network, members, data, state=state, batch_size=batch_size, objective=objective)
    order = [step.model for step in recipe.trail]
    averages = averages_by_count(order, count, mix, data)
    return Fusions({split: alone[split] for split in data}, order[0], uniform, greedy, recipe, ensemble, averages)


def _scores(metrics: AnyMetrics, name: str) -> np.ndarray:
    """Returns (T,) the metric of T models, NaN where nothing is right and the loss is not finite: a model that diverged has no accuracy."""
    values = metrics.value(name)
    return np.where(np.isfinite(metrics.loss) | (values > 0), values, np.nan)


COUNTS = 8
"""Averages of so many numbers of models are evaluated, between one and all."""


def averages_by_count(order: Sequence[int], count: int, mix: Mix, data: Data) -> dict[int, dict[str, AnyMetrics]]:
    """Computes the metrics of the average of the first k models of an order, by k, each with leaves ().

    Args:
      order: the models, the best first.
      count: M, the number of models.
      mix: evaluates averages.
      data: what is reported.
    """
    between = np.arange(2, min(len(order) + 1, count))
    if len(between) > COUNTS:
        between = np.unique(np.geomspace(between[0], between[-1], COUNTS).round().astype(int))
    if not len(between):
        return {}
    weights = np.zeros((len(between), count), np.float32)
    for row, k in zip(weights, between, strict=True):
        row[list(order[: int(k)])] = 1 / k
    metrics = mix(weights, data)
    return {
        int(k): {split: jax.tree.map(lambda x, i=i: x[i], pair) for split, pair in metrics.items()}
        for i, k in enumerate(between)
    }


def rows_by_count(found: Fusions) -> list[dict[str, Any]]:
    """Returns one row per number of models and split: the best single model, averages of the best k, and the average of all."""
    single = {split: jax.tree.map(lambda x: x[found.best], metrics) for split, metrics in found.members.items()}
    points = {1: single, **(found.averages or {}), len(found.recipe.weights): found.uniform}
    result = []
    for split in found.members:
        for count, by_split in points.items():
            metrics = by_split[split]
            names = ("accuracy", "loss") if isinstance(metrics, Metrics) else metrics.names
            values = {name: np.float64(metrics.value(name)) for name in names}
            result.append({"models": count, "split": split, "examples": int(metrics.count), **values})
    return result


def rows(found: Fusions) -> list[dict[str, Any]]:
    """Returns one row per fusion and split, with every metric by its name; accuracies are shares, losses nats."""
    result = []
    for split, members in found.members.items():
        names = ("accuracy", "loss") if isinstance(members, Metrics) else members.names
        values = {name: members.value(name).astype(np.float64) for name in names}
        table: dict[str, dict[str, Any]] = {
            "best single": {**{name: value[found.best] for name, value in values.items()}, "models": [found.best]},
            "mean of members": {
                **{name: value.mean() for name, value in values.items()},
                **{f"{name}_std": _std(value) for name, value in values.items()},
            },
            **{name: {key: m[split].value(key) for key in names} for name, m in (
                ("uniform soup", found.uniform), ("greedy soup", found.greedy), ("logit ensemble", found.ensemble))},
        }  # fmt: skip
        table["greedy soup"]["models"] = np.flatnonzero(found.recipe.weights)
        for name, row_values in table.items():
            row = {"fusion": name, "split": split, "examples": int(members.count[0]), **row_values}
            single = {f"member_{key}": value for key, value in values.items()} if name == "mean of members" else {}
            result.append({**row, **single})
    return result


def _std(values: np.ndarray) -> float:
    """The sample standard deviation, NaN of what diverged."""
    return float(values.std(ddof=1)) if np.isfinite(values).all() else math.nan


def mixtures(
    network: Network,
    members: Params,
    state: State,
    calibration: jax.Array | None,
    placement: Placement,
    batch_size: int = 1000,
    objective: Objective = CLASSIFICATION,
) -> Mix:
    """Returns how averages are evaluated as they are, running statistics, if any, estimated again on `calibration` (N, ...)."""

    def mix(weights: np.ndarray, data: Data) -> dict[str, AnyMetrics]:
        return connectivity.evaluate_mixtures(
            network,
            members,
            weights,
            data,
            state=state,
            calibration=calibration,
            objective=objective,
            batch_size=batch_size,
            placement=placement,
        )

    return mix


def output_ensemble(
    network: Network,
    members: Params,
    data: Data,
    *,
    state: State = (),
    batch_size: int = 1000,
    objective: Objective = CLASSIFICATION,
) -> dict[str, AnyMetrics]:
    """Computes the metrics of the mean of M models' outputs (logits, predictions), scalars for each split. M times a model's cost."""
    run = _logits(network)
    count = jax.tree.leaves(members)[0].shape[0]
    result: dict[str, AnyMetrics] = {}
    for split, examples_of in data.items():
        if isinstance(examples_of, streaming.Stream):
            sums: Any = None
            for part in streaming.parts(examples_of, batch_size):
                metrics = output_ensemble(network, members, {split: part}, state=state, objective=objective)[split]
                sums = streaming.sum_parts(sums, metrics)
            result[split] = sums
            continue
        inputs, targets = examples_of
        examples = len(jax.tree.leaves(targets)[0])
        batches = [
            jax.tree.map(lambda x, start=start: x[start : start + batch_size], inputs)
            for start in range(0, examples, batch_size)
        ]
        total: Any = None
        for i in range(count):
            model = member(members, i), member(state, i)
            outputs = _joined([run(*model, batch) for batch in batches])
            total = outputs if total is None else jax.tree.map(np.add, total, outputs)
        mean = jax.tree.map(lambda x: jnp.asarray(x / np.float32(count)), total)
        counted = objective.sums(mean, targets, jnp.ones(examples, jnp.float32))
        result[split] = jax.tree.map(np.asarray, counted)
    return result


def _joined(parts: list[Any]) -> Any:
    """Batches of outputs as NumPy float32, one after the other."""
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(part, np.float32) for part in x]), *parts)


@functools.lru_cache(maxsize=8)
def _logits(network: Network) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(networks.evaluate, network))

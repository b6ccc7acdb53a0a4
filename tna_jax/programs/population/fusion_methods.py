"""Every fusion of a population of models: best single model, mean, uniform and greedy soup, ensemble of logits."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity, metrics, networks, repair
from tna_jax.averaging import GreedySoup, Ties, greedy_recipe, weighted_average
from tna_jax.ensemble import member
from tna_jax.masks import Params
from tna_jax.metrics import Metrics
from tna_jax.networks import Network, State
from tna_jax.placement import Placement

Data = Mapping[str, tuple[jax.Array, jax.Array]]
"""Inputs (N, ...) and labels (N,) by the name of the split."""
Mix = Callable[[np.ndarray, Data], dict[str, Metrics]]
"""Weights (T, M), sum 1 each, and data to the metrics (T,) of the T averages."""


class Fusions(NamedTuple):
    """Metrics by split. All but `members` are of one model each."""

    members: dict[str, Metrics]
    """Leaves (M,)."""
    best: int
    """The model with the best held-out score."""
    uniform: dict[str, Metrics]
    greedy: dict[str, Metrics]
    recipe: GreedySoup
    """Of the greedy soup."""
    ensemble: dict[str, Metrics]
    """The mean of all members' logits."""


def fuse(
    network: Network,
    members: Params,
    data: Data,
    held_out: tuple[jax.Array, jax.Array],
    mix: Mix,
    *,
    state: State = (),
    ties: Ties = "keep",
    placement: Placement = "auto",
    batch_size: int = 1000,
) -> Fusions:
    """Computes all fusions of M models.

    Args:
      network, members, state: (M, ...).
      data: what is reported.
      held_out: examples by whose accuracy the best model and the greedy soup are chosen.
      mix: evaluates averages, see `mixtures` and `repaired`.
      ties: of the greedy soup.
      batch_size: examples per forward pass.
    """
    count = jax.tree.leaves(members)[0].shape[0]
    alone = connectivity.evaluate(
        network, members, {**data, "held out": held_out}, state=state, batch_size=batch_size, placement=placement
    )
    scores = [float(score) for score in alone["held out"].accuracy]

    def score(weights: np.ndarray) -> float:
        return float(mix(weights[None] / weights.sum(), {"held out": held_out})["held out"].accuracy[0])

    recipe = greedy_recipe(scores, score, ties)
    soups = np.stack([np.full(count, 1 / count, np.float32), recipe.weights / recipe.weights.sum()])
    fused = mix(soups, data)
    uniform, greedy = ({split: Metrics(*(x[i] for x in pair)) for split, pair in fused.items()} for i in (0, 1))
    ensemble = logit_ensemble(network, members, data, state=state, batch_size=batch_size)
    best = recipe.trail[0].model
    return Fusions({split: alone[split] for split in data}, best, uniform, greedy, recipe, ensemble)


def rows(found: Fusions) -> list[dict[str, Any]]:
    """Returns one row per fusion and split; accuracies are shares, losses nats."""
    result = []
    for split, members in found.members.items():
        accuracy, loss = members.accuracy.astype(np.float64), members.loss.astype(np.float64)
        spread = {"accuracy_std": accuracy.std(ddof=1), "loss_std": loss.std(ddof=1)}
        table = {
            "best single": {"accuracy": accuracy[found.best], "loss": loss[found.best], "models": [found.best]},
            "mean of members": {"accuracy": accuracy.mean(), "loss": loss.mean(), **spread},
            **{name: {"accuracy": m[split].accuracy, "loss": m[split].loss} for name, m in (
                ("uniform soup", found.uniform), ("greedy soup", found.greedy), ("logit ensemble", found.ensemble))},
        }  # fmt: skip
        table["greedy soup"]["models"] = np.flatnonzero(found.recipe.weights)
        for name, values in table.items():
            row = {"fusion": name, "split": split, "examples": int(members.count[0]), **values}
            result.append({**row, **({"member_accuracy": accuracy} if name == "mean of members" else {})})
    return result


def mixtures(
    network: Network,
    members: Params,
    state: State,
    calibration: jax.Array | None,
    placement: Placement,
    batch_size: int = 1000,
) -> Mix:
    """Returns how averages are evaluated as they are, running statistics, if any, estimated again on `calibration` (N, ...)."""

    def mix(weights: np.ndarray, data: Data) -> dict[str, Metrics]:
        return connectivity.evaluate_mixtures(
            network,
            members,
            weights,
            data,
            state=state,
            calibration=calibration,
            batch_size=batch_size,
            placement=placement,
        )

    return mix


def repaired(
    module: nn.Module,
    preprocess: Callable[[jax.Array], jax.Array],
    members: Params,
    calibration: jax.Array,
    placement: Placement,
) -> Mix:
    """Returns how averages are evaluated after REPAIR on `calibration` (N, ...); of networks without running statistics."""
    network = _shifted(module, preprocess)

    def mix(weights: np.ndarray, data: Data) -> dict[str, Metrics]:
        averages = []
        for shares in weights:
            used = np.flatnonzero(shares)
            ends = [member(members, int(i)) for i in used]
            repaired_average = repair.repair(
                module, weighted_average(members, shares), ends, shares[used], calibration, preprocess=preprocess
            )
            averages.append((repaired_average.params, repaired_average.shift))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *averages)
        return connectivity.evaluate(network, stacked, data, placement=placement)

    return mix


@functools.lru_cache(maxsize=8)
def _shifted(module: nn.Module, preprocess: Callable[[jax.Array], jax.Array]) -> Network:
    """Returns the repaired network as a function of (params, shifts) and inputs: one function, so that it compiles once."""

    def apply(params: Any, inputs: jax.Array) -> Any:
        return repair.Repaired(params[0], params[1], ()).apply(module, preprocess(inputs))

    return apply


def logit_ensemble(
    network: Network, members: Params, data: Data, *, state: State = (), batch_size: int = 1000
) -> dict[str, Metrics]:
    """Computes loss and accuracy of the mean of M models' logits: `Metrics` of scalars for each split. M times a model's cost."""
    run = _logits(network)
    count = jax.tree.leaves(members)[0].shape[0]
    result = {}
    for split, (inputs, labels) in data.items():
        total = np.zeros((), np.float32)
        for i in range(count):
            model = member(members, i), member(state, i)
            parts = [inputs[start : start + batch_size] for start in range(0, len(labels), batch_size)]
            total = total + np.concatenate([np.asarray(run(*model, part), np.float32) for part in parts])
        logits = jnp.asarray(total / np.float32(count))
        counted = metrics.classification(logits, labels, jnp.ones(len(labels), jnp.float32))
        result[split] = Metrics(*map(np.asarray, counted))
    return result


@functools.lru_cache(maxsize=8)
def _logits(network: Network) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(networks.evaluate, network))

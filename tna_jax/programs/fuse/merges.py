"""The merging methods of `tna fuse --method`: every combination of their options is scored on held-out examples, the best is reported."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import merging
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.merging.method import Scope
from tna_jax.metrics import AnyMetrics
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.fuse import data_aware, methods
from tna_jax.programs.fuse.data_aware import Material, Merged
from tna_jax.programs.fuse.merge_plan import Plan
from tna_jax.programs.fuse.scoring import Finished, Scorer
from tna_jax.programs.population import anchors


class Merge(NamedTuple):
    """The best merged model of one method."""

    method: str
    options: dict[str, Any]
    score: dict[str, float]
    """On held-out examples, by metric."""
    candidates: list[dict[str, Any]]
    """All that were tried: options and their held-out metrics, or why they gave no model."""
    model: Finished
    equal: int
    """Entries that all models share: the merged model holds them, bit for bit."""
    facts: dict[str, Any]
    metrics: dict[str, AnyMetrics]
    """By split, scalars."""


def search(plan: Plan, scorer: Scorer, members: Params, states: State, held_out: tuple[Any, Any]) -> list[Merge]:
    """Returns the best merged model of each method by the held-out examples, not yet measured on anything else.

    Args:
      plan: what is tried.
      scorer: of the models.
      members, states: (M, ...), matched or as trained.
      held_out: inputs and targets to choose by.

    Raises:
      UsageError: no options of a method give a model.
    """
    count = len(scorer.population.models)
    models, each = ([jax.tree.map(np.asarray, member(tree, i)) for i in range(count)] for tree in (members, states))
    base = None if plan.base is None else jax.tree.map(np.asarray, plan.base.params)
    material = Material(scorer.population.exact, models, each, base, plan.inputs, plan.weights)
    kept = {
        needs: anchors.shared(models, base if needs else None)
        for needs in (False, *([True] if base is not None else []))
    }
    found = []
    for name, tried in plan.tried.items():
        with console.status(f"{name}: {plural(len(tried), 'combination')} of options"):
            merger = (
                data_aware.merger(name, material)
                if name in methods.DATA_AWARE
                else _data_free(name, material, plan.scope)
            )
            found.append(_best(name, tried, merger, models[0], kept[methods.ALL[name].needs_base], scorer, held_out))
    return found


def _data_free(name: str, material: Material, scope: Scope) -> Callable[..., Merged]:
    base = material.base if methods.ALL[name].needs_base else None
    return lambda **options: Merged(
        merging.merge(name, material.models, base, material.weights, scope=scope, **options), {}
    )


def _best(
    name: str, tried: list[dict[str, Any]], merger: Callable[..., Merged], first: Params, kept: anchors.Shared,
    scorer: Scorer, held_out: tuple[Any, Any],
) -> Merge:  # fmt: skip
    """Scores one candidate after the other; at most two merged models are held at once."""
    objective = scorer.population.objective
    metric = objective.metric("accuracy" if objective.classes else "loss")
    best: tuple[Any, ...] | None = None
    chosen: Merge | None = None
    candidates: list[dict[str, Any]] = []
    for options in tried:
        try:
            merged = merger(**options)
        except ValueError as error:
            candidates.append({"options": options, "error": str(error)})
            continue
        anchors.verify(name, merged.params, first, kept)
        model = scorer.finish(merged.params)
        metrics = scorer.evaluate([model], {"held out": held_out})["held out"]
        score = {key: float(metrics.value(key)[0]) for key in dict.fromkeys((metric.name, "loss"))}
        candidates.append({"options": options, **score})
        rank = ((1 if metric.larger_is_better else -1) * score[metric.name], -score["loss"])
        if np.isfinite(rank).all() and (best is None or rank > best):
            best, chosen = rank, Merge(name, options, score, [], model, kept.equal, merged.facts, {})
    if chosen is None:
        reasons = dict.fromkeys(str(candidate.get("error", "its loss is not finite")) for candidate in candidates)
        raise UsageError(f"--method {name}: no options give a model: {'; '.join(reasons)}")
    return chosen._replace(candidates=candidates)


def measured(found: list[Merge], scorer: Scorer, data: Any) -> list[Merge]:
    """Returns the merges with their metrics on every split."""
    metrics = scorer.evaluate([merge.model for merge in found], data)
    return [
        merge._replace(metrics={split: jax.tree.map(lambda x, i=i: x[i], values) for split, values in metrics.items()})
        for i, merge in enumerate(found)
    ]

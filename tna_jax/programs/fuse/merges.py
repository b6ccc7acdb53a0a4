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
from tna_jax.programs.fuse import base as fuse_base
from tna_jax.programs.fuse import data_aware, methods
from tna_jax.programs.fuse.base import Base
from tna_jax.programs.fuse.data_aware import Material, Merged
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.fuse.scoring import Finished, Scorer
from tna_jax.programs.population import anchors
from tna_jax.programs.population.load import Population
from tna_jax.programs.training.splits import training_inputs

AVERAGE = "average"
"""Stands beside every other method."""


class Plan(NamedTuple):
    """What is merged how; all that can be refused was."""

    tried: dict[str, list[dict[str, Any]]]
    """The options to try, by method; the average is the first."""
    base: Base | None
    inputs: Any
    """(N, ...) training inputs for methods that look at data; None without any."""
    scope: Scope


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


def plan(settings: FuseOptions, population: Population) -> Plan | None:
    """Returns what is to be merged; None without `--method`.

    Raises:
      UsageError: a method needs a base and there is none, does not fit the network, its objective or the number of models, or has
        no such option.
    """
    if not settings.method:
        return None
    names = [AVERAGE, *(name for name in settings.method if name != AVERAGE)]
    tried = methods.grids(names, settings.method_options, len(population.models))
    inputs = None
    if set(names) & set(methods.DATA_AWARE):
        inputs = training_inputs(population.data, settings.merge_examples)
        data_aware.check(names, population, inputs[:2])
    needing = [name for name in names if methods.ALL[name].needs_base]
    base = fuse_base.of_population(population, settings.base, needing) if needing else None
    return Plan(tried, base, inputs, settings.scope)


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
    material = Material(scorer.population.exact, models, each, base, plan.inputs)
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
    return lambda **options: Merged(merging.merge(name, material.models, base, scope=scope, **options), {})


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


def rows(merged: list[Merge]) -> list[dict[str, Any]]:
    """Returns one row per method and split, as `fusion_methods.rows`; the average is there as the uniform soup."""
    return [
        {
            "fusion": merge.method,
            "split": split,
            "examples": int(values.count),
            **{name: values.value(name) for name in values.names},
        }
        for merge in merged
        if merge.method != AVERAGE
        for split, values in merge.metrics.items()
    ]


def to_report(plan: Plan, merged: list[Merge], settings: FuseOptions, held_out: int, unseen: bool) -> dict[str, Any]:
    """Returns what a results file says of the merges: what chose their options, all that was tried, and what they are.

    Args:
      plan: what was tried.
      merged: the best of each method, measured.
      settings: the options.
      held_out: the number of training examples that chose.
      unseen: whether the models were trained without them.
    """
    named = methods.named(settings.method_options)
    return {
        "chosen_on": {"split": "train", "examples": held_out, "unseen_in_training": unseen},
        "base": None if plan.base is None else plan.base.what,
        "scope": plan.scope,
        "examples_looked_at": None if plan.inputs is None else len(jax.tree.leaves(plan.inputs)[0]),
        "methods": [
            {
                "method": merge.method,
                "options": merge.options,
                "shown": methods.shown(merge.options, plan.tried[merge.method], named),
                "held_out": merge.score,
                **{
                    split: {name: values.value(name) for name in values.names}
                    for split, values in merge.metrics.items()
                },
                "shared_entries": merge.equal,
                **merge.facts,
                "tried": merge.candidates,
            }
            for merge in merged
        ],
    }

"""`tna fuse RUN...`: one model out of many: best single, uniform and greedy soup, ensemble, and the barriers of all pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.masks import Params
from tna_jax.matching.many import Merged
from tna_jax.networks import State
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console
from tna_jax.programs.fuse import matching, merge_plan, merge_report, merges, pairs, save
from tna_jax.programs.fuse import report as fuse_report
from tna_jax.programs.fuse.merge_plan import Plan
from tna_jax.programs.fuse.merges import Merge
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.fuse.scoring import Scorer
from tna_jax.programs.population import ends, fusion_methods, repairs, staging
from tna_jax.programs.population.fusion_methods import Fusions
from tna_jax.programs.population.load import Population, held_out, open_runs
from tna_jax.programs.population.paths import path_grid
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import result_config
from tna_jax.programs.training.splits import splits, training_inputs

RESULTS = ("fuse.json", "fuse.png")
OPTIONS = ("matching", "repair", "reset_ends", "ties", "seed", "calibration_examples")


class Task(NamedTuple):
    """What is fused; all that can be refused was."""

    opened: Population
    calibration: jax.Array
    """(N, ...) training inputs."""
    repairable: Repairable | None
    """What REPAIR takes; None without it."""
    plan: Plan | None
    """Of merging methods."""


class Held(NamedTuple):
    """The examples that choose."""

    inputs: Any
    labels: Any
    unseen: bool
    """Whether the models were trained without them."""


class Fused(NamedTuple):
    """What came of it."""

    found: Fusions
    merged: list[Merge]
    """By merging methods; the average is the first."""


def run(settings: FuseOptions) -> dict[str, Any]:
    """Fuses the models and writes fuse.json and fuse.png into the first run's folder; returns what the JSON holds."""
    settings.check()
    if settings.out is not None:
        staging.check(Path(settings.out), settings.overwrite)
    distributed.start(settings, 16)
    task = prepare(settings)
    opened = task.opened
    console.print(f"{opened.data.describe()}; {opened.what}; {len(opened.models)} models")
    matched = matching.match(opened, task.calibration, settings)
    members, state = (opened.params, opened.state) if matched is None else (matched.members, matched.state)
    held = Held(*held_out(opened, settings.data_dir, settings.held_out_examples))
    fused = fuse(settings, task, members, state, held)
    rows = pairs.rows(settings, opened, members, state, task.calibration, task.repairable)
    result = to_result(settings, task, matched, held, fused, rows)
    folder = opened.folder
    models = (members, state, fused.found, task.calibration, task.repairable, fused.merged)
    outputs: list[Callable[[], Any]] = [lambda: folder.write(RESULTS[0], result)]
    if settings.out is not None:
        outputs.append(lambda: save.write(settings, opened, *models))
    collect_errors(*outputs)  # what one of them refuses the other does not lose
    if distributed.is_main_process():
        with folder.drawing(RESULTS[1]) as file:
            present(fuse_report.describe(result), file)
        written = f", and the fused models into {settings.out}" if settings.out is not None else ""
        where = folder.folder
        wrote(f"{where / RESULTS[0]} and {where / RESULTS[1]}{written}", "tna", "report", str(where))
    return result


def prepare(settings: FuseOptions) -> Task:
    """Opens the models and plans what is done with them.

    Raises:
      UsageError: whatever does not go together; nothing expensive was done.
    """
    opened = open_runs(settings.runs, settings.data_dir, settings.models, settings.trust_code)
    repairable = None
    if settings.repair:
        try:
            repairable = repairs.repairable(opened)
        except UsageError as error:
            raise UsageError(f"--repair: {error}") from error
    if settings.reset_ends:
        ends.check(opened)
    save.check(settings, opened, repairable)
    plan = merge_plan.plan(settings, opened)
    calibration = training_inputs(opened.data, settings.calibration_examples)
    if settings.reset_ends:
        opened = ends.reset(opened, calibration)
    return Task(opened, calibration, repairable, plan)


def fuse(settings: FuseOptions, task: Task, members: Params, state: State, held: Held) -> Fused:
    """Computes soups, the ensemble and merges.

    Args:
      settings: the options.
      task: the models, and how averages are made to fit their data.
      members, state: (M, ...), matched or as trained.
      held: the examples that choose.
    """
    opened, calibration, repairable, plan = task
    data, placement, objective = splits(opened.data), settings.placement, opened.objective
    if repairable is not None:
        mix = repairs.repaired(*repairable, members, calibration, placement, objective)
    else:
        mix = fusion_methods.mixtures(opened.network, members, state, calibration, placement, objective=objective)
    with console.status(f"averaging {len(opened.models)} models, scored on {len(held.labels)} examples"):
        found = fusion_methods.fuse(
            opened.network, members, data, held[:2], mix, state=state, ties=settings.ties, objective=objective,
            placement=placement,
        )  # fmt: skip
    if plan is None:
        return Fused(found, [])
    scorer = Scorer(opened, members, state, calibration, repairable, placement, plan.weights)
    merged = merges.search(plan, scorer, members, state, held[:2])
    return Fused(found, merges.measured(merged, scorer, data))


def to_result(
    settings: FuseOptions, task: Task, matched: Merged | None, held: Held, fused: Fused, pair_rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns what fuse.json holds, as JSON's own types."""
    opened, found, plan = task.opened, fused.found, task.plan
    examples = len(held.labels)
    result: dict[str, Any] = to_json({
        "provenance": provenance([settings.seed]),
        "runs": settings.runs,
        "run": result_config(opened.config),
        "network": opened.what,
        **measures.as_recorded(opened.objective),
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {**{key: getattr(settings, key) for key in OPTIONS}, "restarts": settings.starts},
        "held_out": {"examples": examples, "unseen_in_training": held.unseen},
        "rows": [
            *fusion_methods.rows(found), *merge_report.rows(fused.merged, weighted=settings.weights is not None),
        ],
        "by_count": fusion_methods.rows_by_count(found),
        "greedy": {
            "weights": found.recipe.weights, "score": found.recipe.score,
            "trail": [step._asdict() for step in found.recipe.trail],
        },
        "alphas": path_grid(settings.alphas),
        "pairs": pair_rows,
        "matched": None if matched is None else matching.summary(matched),
        **({} if plan is None else {
            "merges": merge_report.to_report(plan, fused.merged, settings, examples, held.unseen)
        }),
    })  # fmt: skip
    return result

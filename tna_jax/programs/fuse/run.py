"""`tna fuse RUN...`: one model out of many: best single, uniform and greedy soup, ensemble, and the barriers of all pairs."""

from typing import Any

import jax
import numpy as np

from tna_jax import connectivity
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.matching import permutations
from tna_jax.matching.many import Merged, match_to_first, merge_many
from tna_jax.matching.weights import activation_matching
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.fuse import merges, save
from tna_jax.programs.fuse import report as fuse_report
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.fuse.scoring import Scorer
from tna_jax.programs.population import fusion_methods, repairs
from tna_jax.programs.population.load import Population, held_out, open_runs
from tna_jax.programs.population.paths import evaluate_pairs, path_grid
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import result_config
from tna_jax.programs.training.splits import splits, training_inputs

RESULTS = ("fuse.json", "fuse.png")


def run(settings: FuseOptions) -> dict[str, Any]:
    """Fuses the models and writes fuse.json and fuse.png into the first run's folder; returns what the JSON holds."""
    settings.check()
    alphas = path_grid(settings.alphas)
    distributed.start(settings, 16)
    opened = open_runs(settings.runs, settings.data_dir, settings.models, settings.trust_code)
    repairable = None
    if settings.repair:
        try:
            repairable = repairs.repairable(opened)
        except UsageError as error:
            raise UsageError(f"--repair: {error}") from error
    save.check(settings, opened, repairable)
    plan = merges.plan(settings, opened)
    console.print(f"{opened.data.describe()}; {opened.what}; {len(opened.models)} models")
    objective = opened.objective
    names = [measure.name for measure in measures.of_objective(objective)]
    data, placement = splits(opened.data), settings.placement
    calibration = training_inputs(opened.data, settings.calibration_examples)
    params, state, matched = opened.params, opened.state, None
    if settings.matching != "none":
        with console.status(f"matching {len(opened.models)} models"):
            matched = match(opened, calibration, settings.matching, settings.seed)
        params, state = matched.members, matched.state
    chosen_on, labels, unseen = held_out(opened, settings.data_dir, settings.held_out_examples)
    if repairable is not None:
        mix = repairs.repaired(*repairable, params, calibration, placement, objective)
    else:
        mix = fusion_methods.mixtures(opened.network, params, state, calibration, placement, objective=objective)
    with console.status(f"averaging {len(opened.models)} models, scored on {len(labels)} examples"):
        found = fusion_methods.fuse(
            opened.network,
            params,
            data,
            (chosen_on, labels),
            mix,
            state=state,
            ties=settings.ties,
            objective=objective,
            placement=placement,
        )
    merged: list[merges.Merge] = []
    if plan is not None:
        scorer = Scorer(opened, params, state, calibration, repairable, placement)
        merged = merges.search(plan, scorer, params, state, (chosen_on, labels))
        merged = merges.measured(merged, scorer, data)
    if settings.out is not None:
        save.write(settings, opened, params, state, found, calibration, repairable, merged)
    pairs = connectivity.pairs(len(opened.models))
    with console.status(f"evaluating {plural(len(pairs), 'path')} of {len(alphas)} points"):
        paths = evaluate_pairs(
            opened.network, params, state, pairs, alphas, opened.data, placement=placement,
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit, objective=objective,
        )  # fmt: skip
    result: dict[str, Any] = to_json({
        "provenance": provenance([settings.seed]),
        "runs": settings.runs,
        "run": result_config(opened.config),
        "network": opened.what,
        **measures.as_recorded(objective),
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {key: getattr(settings, key) for key in ("matching", "repair", "ties", "seed", "calibration_examples")},
        "held_out": {"examples": len(labels), "unseen_in_training": unseen},
        "rows": [*fusion_methods.rows(found), *merges.rows(merged)],
        "greedy": {"weights": found.recipe.weights, "score": found.recipe.score,
                   "trail": [step._asdict() for step in found.recipe.trail]},
        "pairs": [
            {"pair": pairs[i], "split": split, f"{names[0]}_midpoint": path.value(names[0])[i, int(np.argmax(alphas == 0.5))],
             **{f"{name}_barrier": np.asarray(connectivity.barrier(path, "linear", name))[i] for name in names}}
            for split, path in paths.items()
            for i in range(len(pairs))
        ],
        "matched": None if matched is None else summary(matched),
        **({} if plan is None else {"merges": merges.to_report(plan, merged, settings, len(labels), unseen)}),
    })  # fmt: skip
    folder = opened.folder
    folder.write(RESULTS[0], result)
    if distributed.is_main_process():
        present(fuse_report.describe(result), folder.folder / RESULTS[1])
        written = f", and the fused models into {settings.out}" if settings.out is not None else ""
        print(f"wrote {folder.folder / RESULTS[0]} and {folder.folder / RESULTS[1]}{written}")
    return result


def match(opened: Population, calibration: jax.Array, kind: str, seed: int) -> Merged:
    """The models, matched: `weight` with MergeMany, `activation` all to the first.

    Raises:
      UsageError: the groups of the network cannot be found.
    """
    one = jax.tree.map(lambda leaf: leaf[0], (opened.params, opened.state))
    try:
        spec = permutations.permutation_spec(opened.exact, one[0], calibration[:16], one[1])
    except ValueError as error:
        raise UsageError(f"--matching {kind}: {error}") from error
    if kind == "weight":
        return merge_many(spec, opened.params, state=opened.state, key=jax.random.key(seed))
    return match_to_first(
        opened.params, lambda a, b, s: activation_matching(spec, a, b, calibration, states=(one[1], s)), opened.state
    )


def summary(matched: Merged) -> dict[str, Any]:
    """What the report says of a matching."""
    keys = ("objective", "sweeps", "assignments", "moving", "moved")
    return {
        "rounds": matched.rounds,
        "models": [{key: getattr(one, key) for key in keys} for one in matched.matchings],
    }

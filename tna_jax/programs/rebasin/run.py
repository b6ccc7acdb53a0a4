"""`tna rebasin RUN`: permutes hidden units so that models match, and compares the barriers before, after, and with REPAIR."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.progress import track

from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.networks import Stateful
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.population import repairs, saving
from tna_jax.programs.population.load import Population, open_runs
from tna_jax.programs.population.paths import choose_pairs, evaluate_pairs, path_grid
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.rebasin import report as rebasin_report
from tna_jax.programs.rebasin import save
from tna_jax.programs.rebasin.matches import Matches, match_pairs
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs import imported
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import result_config
from tna_jax.programs.training.splits import splits, training_inputs

RESULTS = ("rebasin.json", "rebasin.png")


def run(settings: RebasinOptions) -> dict[str, Any]:
    """Matches the pairs and writes rebasin.json and rebasin.png into the run's folder; returns what the JSON holds."""
    settings.check()
    distributed.start(settings, 16)
    if settings.files:
        run_folder = imported.import_files(settings.files, None, False)
        settings = dataclasses.replace(settings, runs=(str(run_folder.folder),))
    opened = open_runs(settings.runs, settings.data_dir, trust_code=settings.trust_code)
    if settings.out is not None:
        saving.check(settings.out, settings.format, settings.overwrite, opened, settings.runs)
    count = len(opened.models)
    pairs = choose_pairs(settings.pairs, count)
    if not settings.pairs:
        pairs = np.array([[0, j] for j in range(1, count)], np.int32)
    console.print(f"{opened.data.describe()}; {opened.what}; {count} models, {plural(len(pairs), 'pair')}")
    matches = match_pairs(opened, pairs, settings)
    repairable = repairable_of(opened) if settings.repair else None
    rows = list(compare(opened, pairs, matches, settings, repairable))
    calibration = training_inputs(opened.data, settings.calibration_examples)
    written = save.write(settings, opened, matches, calibration, repairable)
    result: dict[str, Any] = to_json({
        "provenance": provenance([settings.seed]),
        "runs": settings.runs,
        "run": result_config(opened.config),
        "network": opened.what,
        **measures.as_recorded(opened.objective),
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {key: getattr(settings, key) for key in ("seed", "restarts", "calibration_examples")},
        "alphas": path_grid(settings.alphas),
        "rows": rows,
        "groups": [{"pair": match.pair, "method": match.method, **group} for match in matches.matches for group in match.groups],
        "correlations": matches.picture,
    })  # fmt: skip
    opened.folder.write(RESULTS[0], result)
    if distributed.is_main_process():
        folder = opened.folder.folder
        present(rebasin_report.describe(result), folder / RESULTS[1])
        print("; ".join([f"wrote {folder / RESULTS[0]} and {folder / RESULTS[1]}", *written]))
    return result


def compare(
    opened: Population, pairs: np.ndarray, matches: Matches, settings: RebasinOptions, repairable: Repairable | None
) -> Iterator[dict[str, Any]]:
    """The path of every pair before matching, after each method, and with REPAIR: one row for each of these and split.

    Args:
      opened: the models.
      pairs: (P, 2) their numbers; the second of a pair is matched to the first.
      matches: what matching found.
      settings: how paths are evaluated.
      repairable: what REPAIR takes; None to go without.
    """
    data, placement = splits(opened.data), settings.placement
    alphas = path_grid(settings.alphas)
    calibration = training_inputs(opened.data, settings.calibration_examples)
    with console.status(f"evaluating {plural(len(pairs), 'path')} of {len(alphas)} points"):
        before = evaluate_pairs(
            opened.network, opened.params, opened.state, pairs, alphas, opened.data, placement=placement,
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit,
            objective=opened.objective,
        )  # fmt: skip
    names = [measure.name for measure in measures.of_objective(opened.objective)]
    for split, path in before.items():
        for i, pair in enumerate(pairs):
            yield row(pair, "unmatched", split, Path(alphas, jax.tree.map(lambda x, i=i: x[i], path.metrics)), names)
    for match in track(matches.matches, "evaluating matched pairs", console=console, transient=True):
        pair, kind = np.array(match.pair), f"{match.method} matching"
        both, states = (
            jax.tree.map(lambda x, y, i=pair[0]: np.stack([x[i], np.asarray(y)]), *trees)
            for trees in zip((opened.params, opened.state), matches.applied(opened, match), strict=True)
        )
        after = connectivity.evaluate_paths(
            opened.network, both, np.array([[0, 1]]), alphas, data, state=states, calibration=calibration,
            placement=placement, objective=opened.objective,
        )  # fmt: skip
        for split, path in after.items():
            alone = Path(alphas, jax.tree.map(lambda x: x[0], path.metrics))
            yield row(pair, kind, split, alone, names) | match.search
        if repairable is not None:
            mix = repairs.repaired(*repairable, both, calibration, placement, opened.objective)
            for split, metrics in mix(np.stack([1 - alphas, alphas], axis=1), data).items():
                yield row(pair, f"{kind} + REPAIR", split, Path(alphas, metrics), names) | match.search


def repairable_of(opened: Population) -> Repairable | None:
    """Returns what REPAIR takes; None, and a word on the screen, where it cannot be done for a network of the user's own."""
    if isinstance(opened.network, Stateful):
        return None
    try:
        return repairs.repairable(opened)
    except UsageError as error:
        console.print(f"without REPAIR: {error}", highlight=False)
        return None


def row(pair: np.ndarray, kind: str, split: str, path: Path, names: list[str]) -> dict[str, Any]:
    """One path by all measures, the ends and the midpoint by the first; accuracies are shares, losses nats or the objective's."""
    middle, first = int(np.argmax(path.alphas == 0.5)), path.value(names[0])
    return {
        "pair": pair, "kind": kind, "split": split, "examples": int(path.metrics.count[0]),
        **{f"{name}_path": path.value(name) for name in names},
        f"{names[0]}_ends": [first[0], first[-1]], f"{names[0]}_midpoint": first[middle],
        **{f"{name}_barrier": connectivity.barrier(path, "linear", name) for name in names},
    }  # fmt: skip

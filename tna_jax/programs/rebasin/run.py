"""`tna rebasin RUN`: permutes hidden units so that models match, and compares the barriers before, after, and with REPAIR."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import track

from tna_jax import connectivity
from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.networks import Stateful
from tna_jax.programs.cli.messages import print_warning, wrote
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.population import ends, repairs, saving, staging
from tna_jax.programs.population.load import Population, open_runs
from tna_jax.programs.population.paths import choose_pairs, evaluate_pairs, path_grid, path_of, path_row
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.rebasin import report as rebasin_report
from tna_jax.programs.rebasin import save
from tna_jax.programs.rebasin.matches import Matches, match_pairs
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.paths import REPAIRED, UNMATCHED
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs import imported
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import result_config
from tna_jax.programs.training.splits import splits, training_inputs

RESULTS = ("rebasin.json", "rebasin.png")


def run(settings: RebasinOptions) -> dict[str, Any]:
    """Matches the pairs and writes rebasin.json and rebasin.png into the run's folder; returns what the JSON holds."""
    settings.check()
    if settings.files:
        chosen_pairs(settings, len(settings.files))
    if settings.out is not None:
        staging.check(Path(settings.out), settings.overwrite)
    distributed.start(settings, 16)
    if settings.files:
        run_folder = imported.import_files(settings.files, None, False)
        settings = dataclasses.replace(settings, runs=(str(run_folder.folder),))
    opened = open_runs(settings.runs, settings.data_dir, trust_code=settings.trust_code)
    if settings.out is not None:
        saving.check(settings.out, settings.format, settings.overwrite, opened, settings.runs)
    count = len(opened.models)
    pairs = chosen_pairs(settings, count)
    calibration = training_inputs(opened.data, settings.calibration_examples)
    if settings.reset_ends:
        ends.check(opened)
        opened = ends.reset(opened, calibration)
    console.print(f"{opened.data.describe()}; {opened.what}; {count} models, {plural(len(pairs), 'pair')}")
    matches = match_pairs(opened, pairs, settings)
    repairable = repairable_of(opened) if settings.repair else None
    rows = list(compare(opened, pairs, matches, settings, repairable))
    result = to_result(settings, opened, matches, rows)
    written: list[str] = []
    collect_errors(  # what one of them refuses the other does not lose
        lambda: opened.folder.write(RESULTS[0], result),
        lambda: written.extend(save.write(settings, opened, matches, calibration, repairable)),
    )
    if distributed.is_main_process():
        folder = opened.folder.folder
        with opened.folder.drawing(RESULTS[1]) as file:
            present(rebasin_report.describe(result), file)
        wrote("; ".join([f"{folder / RESULTS[0]} and {folder / RESULTS[1]}", *written]), "tna", "report", str(folder))
    return result


def chosen_pairs(settings: RebasinOptions, count: int) -> np.ndarray:
    """Returns (P, 2) the pairs of `count` models that are compared: those of --pairs, else every model with that of --to, or the first.

    Raises:
      UsageError: a model that is not there.
    """
    if settings.pairs:
        return choose_pairs(settings.pairs, count)
    to = settings.reference or 0
    if to >= count:
        raise UsageError(f"--to {to}: there is no such model; the numbers go from 0 to {count - 1}")
    return np.array([[to, j] for j in range(count) if j != to], np.int32)


def to_result(
    settings: RebasinOptions, opened: Population, matches: Matches, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """Returns what rebasin.json holds, as JSON's own types."""
    options = ("seed", "calibration_examples", "reset_ends")
    to = settings.to if len(settings.to) > 1 else next(iter(settings.to), None)
    result: dict[str, Any] = to_json({
        "provenance": provenance([settings.seed]),
        "runs": settings.runs,
        "run": result_config(opened.config),
        "network": opened.what,
        **measures.as_recorded(opened.objective),
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {"to": to, **{key: getattr(settings, key) for key in options}, "restarts": settings.starts},
        "joint": matches.joint,
        "alphas": path_grid(settings.alphas),
        "rows": rows,
        "groups": [
            {"pair": match.pair, "method": match.method, "kind": match.kind, **group}
            for match in matches.matches for group in match.groups
        ],
        "correlations": matches.picture,
    })  # fmt: skip
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
            yield path_row(pair, UNMATCHED, split, path_of(path, i), names)
    for match in track(matches.matches, "evaluating matched pairs", console=console, transient=True):
        pair = np.array(match.pair)
        both, states = (
            jax.tree.map(lambda *leaves: np.stack(list(map(np.asarray, leaves))), *pair_of)
            for pair_of in zip(*matches.ends(opened, match), strict=True)
        )
        after = connectivity.evaluate_paths(
            opened.network, both, np.array([[0, 1]]), alphas, data, state=states, calibration=calibration,
            placement=placement, objective=opened.objective,
        )  # fmt: skip
        for split, path in after.items():
            yield path_row(pair, match.kind, split, path_of(path, 0), names) | match.search
        if repairable is not None:
            mended = repairs.repaired_path(repairable, both, alphas, data, calibration, placement, opened.objective)
            for split, path in mended.items():
                yield path_row(pair, f"{match.kind}{REPAIRED}", split, path, names) | match.search


def repairable_of(opened: Population) -> Repairable | None:
    """Returns what REPAIR takes; None, and a word on the screen, where it cannot be done for a network of the user's own."""
    if isinstance(opened.network, Stateful):
        return None
    try:
        return repairs.repairable(opened)
    except UsageError as error:
        print_warning(f"without REPAIR: {error}")
        return None

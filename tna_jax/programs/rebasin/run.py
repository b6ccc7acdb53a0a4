"""`tna rebasin RUN`: permutes hidden units so that models match, and compares the barriers before, after, and with REPAIR."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from rich.progress import track

from tna_jax import connectivity
from tna_jax.connectivity import Path
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.matching import permutations
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.matching.weights import Matching, activation_matching, weight_matching
from tna_jax.networks import Stateful
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.population import repairs
from tna_jax.programs.population.load import Population, open_runs
from tna_jax.programs.population.paths import choose_pairs, evaluate_pairs, path_grid
from tna_jax.programs.rebasin import report as rebasin_report
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.system import distributed
from tna_jax.programs.training.setup import result_config
from tna_jax.programs.training.splits import splits, training_inputs

RESULTS = ("rebasin.json", "rebasin.png")


def run(settings: RebasinOptions) -> dict[str, Any]:
    """Matches the pairs and writes rebasin.json and rebasin.png into the run's folder; returns what the JSON holds."""
    settings.check()
    distributed.start(settings, 16)
    opened = open_runs((settings.run,), settings.data_dir, trust_code=settings.trust_code)
    count = len(opened.models)
    pairs = choose_pairs(settings.pairs, count)
    if not settings.pairs:
        pairs = np.array([[0, j] for j in range(1, count)], np.int32)
    console.print(f"{opened.data.describe()}; {opened.what}; {count} models, {plural(len(pairs), 'pair')}")
    rows = list(compare(opened, pairs, settings))
    result: dict[str, Any] = to_json({
        "provenance": provenance([settings.seed]),
        "run": result_config(opened.config),
        "network": opened.what,
        **measures.as_recorded(opened.objective),
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {key: getattr(settings, key) for key in ("seed", "restarts", "calibration_examples")},
        "alphas": path_grid(settings.alphas),
        "rows": rows,
    })  # fmt: skip
    opened.folder.write(RESULTS[0], result)
    if distributed.is_main_process():
        folder = opened.folder.folder
        present(rebasin_report.describe(result), folder / RESULTS[1])
        print(f"wrote {folder / RESULTS[0]} and {folder / RESULTS[1]}")
    return result


def compare(opened: Population, pairs: np.ndarray, settings: RebasinOptions) -> Iterator[dict[str, Any]]:
    """The path of every pair before matching, after each method, and with REPAIR: one row for each of these and split.

    Args:
      opened: the models.
      pairs: (P, 2) their numbers; the second of a pair is matched to the first.

    Raises:
      UsageError: the groups of the network cannot be found.
    """
    data, placement = splits(opened.data), settings.placement
    alphas = path_grid(settings.alphas)
    calibration = training_inputs(opened.data, settings.calibration_examples)
    first, own = member(opened.params, 0), member(opened.state, 0)
    try:
        spec = permutations.permutation_spec(opened.exact, first, calibration[:16], own)
    except ValueError as error:
        raise UsageError(f"{settings.run}: {error}") from error
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
    repairable = _repairable(opened) if settings.repair else None
    for pair in track(pairs, "matching pairs", console=console, transient=True):
        for method in settings.methods:
            start = time.perf_counter()
            found = matched(spec, opened, pair, method, calibration, settings)
            facts = {key: getattr(found, key) for key in ("objective", "sweeps", "assignments", "moving", "moved")}
            facts["seconds"] = time.perf_counter() - start
            both, states = (
                jax.tree.map(lambda x, y, i=pair[0]: np.stack([x[i], np.asarray(y)]), *trees)
                for trees in ((opened.params, found.params), (opened.state, found.state))
            )
            after = connectivity.evaluate_paths(
                opened.network,
                both,
                np.array([[0, 1]]),
                alphas,
                data,
                state=states,
                calibration=calibration,
                placement=placement,
                objective=opened.objective,
            )
            for split, path in after.items():
                alone = Path(alphas, jax.tree.map(lambda x: x[0], path.metrics))
                yield row(pair, f"{method} matching", split, alone, names) | facts
            if repairable is not None:
                mix = repairs.repaired(*repairable, both, calibration, placement, opened.objective)
                for split, metrics in mix(np.stack([1 - alphas, alphas], axis=1), data).items():
                    yield row(pair, f"{method} matching + REPAIR", split, Path(alphas, metrics), names) | facts


def _repairable(opened: Population) -> tuple[Any, Any] | None:
    """What REPAIR takes; None, and a word on the screen, where it cannot be done for a network of the user's own."""
    if isinstance(opened.network, Stateful):
        return None
    try:
        return repairs.repairable(opened)
    except UsageError as error:
        console.print(f"without REPAIR: {error}", highlight=False)
        return None


def matched(
    spec: PermutationSpec,
    opened: Population,
    pair: np.ndarray,
    method: str,
    calibration: jax.Array,
    settings: RebasinOptions,
) -> Matching:
    """The second model of a pair, matched to the first."""
    (a, b), (a_state, b_state) = ([member(tree, int(i)) for i in pair] for tree in (opened.params, opened.state))
    if method == "weight":
        key = jax.random.key(settings.seed)
        return weight_matching(spec, a, b, state=b_state, key=key, restarts=settings.restarts)
    return activation_matching(spec, a, b, calibration, states=(a_state, b_state))


def row(pair: np.ndarray, kind: str, split: str, path: Path, names: list[str]) -> dict[str, Any]:
    """One path by all measures, the ends and the midpoint by the first; accuracies are shares, losses nats or the objective's."""
    middle, first = int(np.argmax(path.alphas == 0.5)), path.value(names[0])
    return {
        "pair": pair, "kind": kind, "split": split, "examples": int(path.metrics.count[0]),
        **{f"{name}_path": path.value(name) for name in names},
        f"{names[0]}_ends": [first[0], first[-1]], f"{names[0]}_midpoint": first[middle],
        **{f"{name}_barrier": connectivity.barrier(path, "linear", name) for name in names},
    }  # fmt: skip

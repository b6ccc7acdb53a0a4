"""The paths between all pairs of the models that `tna fuse` fuses, as they are and after REPAIR: rows of fuse.json."""

from typing import Any

import jax
import numpy as np
from rich.progress import track

from tna_jax import connectivity
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.population import repairs
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.paths import evaluate_pairs, path_grid, path_of, path_row
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.paths import REPAIRED
from tna_jax.programs.training.splits import splits

AS_TRAINED = "as trained"


def kind(settings: FuseOptions) -> str:
    """Returns how the models were matched, in words."""
    if settings.matching == "none":
        return AS_TRAINED
    return f"{settings.matching} matching{' to the mean' * (settings.matching == 'weight')}"


def rows(
    settings: FuseOptions, opened: Population, members: Params, state: State, calibration: jax.Array,
    repairable: Repairable | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns a row for each pair, split and kind: the path as it is, and after REPAIR of its points, where that can be done.

    Args:
      settings: how paths are evaluated.
      opened: the models' data, network and objective.
      members, state: (M, ...), matched or as trained.
      calibration: (N, ...) training inputs.
      repairable: what REPAIR takes; None to go without.
    """
    pairs, alphas = connectivity.pairs(len(opened.models)), path_grid(settings.alphas)
    names = [measure.name for measure in measures.of_objective(opened.objective)]
    with console.status(f"evaluating {plural(len(pairs), 'path')} of {len(alphas)} points"):
        paths = evaluate_pairs(
            opened.network, members, state, pairs, alphas, opened.data, placement=settings.placement,
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit,
            objective=opened.objective,
        )  # fmt: skip
    result = [
        path_row(pair, kind(settings), split, path_of(path, i), names)
        for split, path in paths.items()
        for i, pair in enumerate(pairs)
    ]
    if repairable is None:
        return result
    data = splits(opened.data)
    for pair in track(pairs, "repairing paths", console=console, transient=True):
        ends = jax.tree.map(lambda leaf, pair=pair: np.stack([np.asarray(leaf[i]) for i in pair]), members)
        mended = repairs.repaired_path(
            repairable, ends, alphas, data, calibration, settings.placement, opened.objective
        )
        result += [path_row(pair, kind(settings) + REPAIRED, split, path, names) for split, path in mended.items()]
    return result

"""The fused models that `tna fuse --out` writes, and what is said of each."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import repair
from tna_jax.averaging import average_stacked
from tna_jax.ensemble import member
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.networks import State, Stateful
from tna_jax.programs.fuse.merges import Merge
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.fuse.scoring import Finished, written
from tna_jax.programs.population import anchors, repairs, saving
from tna_jax.programs.population.fusion_methods import Fusions
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable


def check(settings: FuseOptions, population: Population, repairable: Repairable | None) -> None:
    """Raises UsageError for models that cannot be written in the chosen form, or over something, before any work."""
    if settings.out is None:
        return
    saving.check(settings.out, settings.format, settings.overwrite, population, settings.runs)
    if repairable is not None and (layers := repairs.layers_without_bias(repairable, population)):
        raise UsageError(
            f"--repair --out: the layers {', '.join(layers)} have no bias that could hold their repaired shift; leave out one of them"
        )


def write(
    settings: FuseOptions, population: Population, members: Params, state: State, found: Fusions, calibration: Any,
    repairable: Repairable | None, merged: list[Merge],
) -> Path:  # fmt: skip
    """Writes the best single model, the uniform and the greedy soup, and the merges; returns the folder.

    Running statistics of soups are estimated again, and soups are repaired, as where they were evaluated. A model that does not
    hold the anchors of those it was made of (see `anchors.facts`) is written without their mask.

    Args:
      settings: the options.
      population: the models as they were trained.
      members, state: (M, ...), matched or as trained.
      found: which of them are fused.
      calibration: training inputs (N, ...) for statistics and REPAIR.
      repairable: what REPAIR takes; None to go without.
      merged: the best of each merging method.
    """
    assert settings.out is not None
    count = len(population.models)
    weights = {
        "best": np.eye(count, dtype=np.float32)[found.best],
        "uniform": np.full(count, 1 / count, np.float32),
        "greedy": (found.recipe.weights / found.recipe.weights.sum()).astype(np.float32),
    }
    models = {
        name: _fused(population, members, state, shares, calibration, repairable) for name, shares in weights.items()
    }
    if repairable is None:  # REPAIR rescales units, anchors among them
        ends = [jax.tree.map(np.asarray, member(members, i)) for i in range(count)]
        kept = anchors.shared(ends)
        for name, (params, _) in models.items():
            anchors.verify(name, params, ends[0], kept)
    described = {name: _described(population, name, models[name][0], shares) for name, shares in weights.items()}
    for merge in merged:
        if merge.method == "average" and settings.weights is None:  # which is the uniform soup
            continue
        models[merge.method] = written(merge.method, merge.model)
        shares = np.full(count, 1 / count) if settings.weights is None else np.array(settings.weights)
        about = _described(population, merge.method, models[merge.method][0], shares)
        if settings.weights is None:
            del about["weights"]  # of a method's own
        described[merge.method] = {**about, "options": merge.options}
    return saving.write(
        settings.out, settings.format, population, models, described, settings.seed, {"fused": list(settings.runs)},
    )  # fmt: skip


def _fused(
    population: Population,
    members: Params,
    state: State,
    shares: np.ndarray,
    calibration: Any,
    repairable: Repairable | None,
) -> tuple[Params, State]:
    used = np.flatnonzero(shares)
    if len(used) == 1:
        return member(members, int(used[0])), member(state, int(used[0]))
    average = average_stacked(members, shares)
    if repairable is not None:
        module, preprocess = repairable
        ends = [member(members, int(i)) for i in used]
        repaired = repair.repair(module, average, ends, shares[used], jnp.asarray(calibration), preprocess=preprocess)
        return written("a soup", Finished(repaired.params, (), repaired.shift))
    network = population.network
    if not isinstance(network, Stateful):
        return average, ()
    return average, repair.reset_batch_stats(network, average, member(state, int(used[0])), jnp.asarray(calibration))


def _described(population: Population, name: str, params: Params, shares: np.ndarray) -> dict[str, Any]:
    """Returns what plan.json says of a fused model: of what it was made, and its anchors where it holds them."""
    used = np.flatnonzero(shares)
    parts = [{"run": population.models[i]["run"], "number": population.models[i]["number"]} for i in used]
    held = anchors.facts(population, used.tolist(), params)
    return {**held, "fusion": name, "merged": parts, "weights": shares[used].tolist()}

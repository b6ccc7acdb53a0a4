"""The matched models and the permutations that `tna rebasin` writes, and what is said of each model."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax import repair
from tna_jax.averaging import average_stacked
from tna_jax.ensemble import member
from tna_jax.io.permutations import StoredPermutation, save_permutations
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population import anchors, saving
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.population.staging import PERMUTATIONS
from tna_jax.programs.rebasin.matches import Match, Matches
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.system import distributed


def write(
    settings: RebasinOptions, population: Population, matches: Matches, calibration: Any, repairable: Repairable | None
) -> list[str]:
    """Writes what --out and --permutations ask for; returns it in words.

    The models: those that others were matched to, unchanged; the matched ones with their statistics, by pair and method; and, where
    REPAIR can be done, the repaired midpoint of each pair. Of the first pairs (every model to the first) by one method, the
    models keep their numbers.
    """
    words = []

    def permutations_into(file: Path) -> None:
        save_permutations(
            file,
            [StoredPermutation(match.pair, match.method, match.permutation) for match in matches.matches],
            units=matches.spec.groups,
            models=[_origin(population, i) for i in range(len(population.models))],
        )

    if settings.permutations is not None:
        if distributed.is_main_process():
            permutations_into(Path(settings.permutations))
        words.append(settings.permutations)
    if settings.out is not None:
        models = _models(population, matches, calibration, repairable)
        folder = saving.write(
            settings.out, settings.format, population, {name: model for name, (model, _) in models.items()},
            {name: facts for name, (_, facts) in models.items()}, settings.seed, {"matched": list(settings.runs)},
            lambda staged: permutations_into(staged / PERMUTATIONS),
        )  # fmt: skip
        words.append(f"{len(models)} models ({', '.join(models)}) and {PERMUTATIONS} into {folder}")
    return words


Described = tuple[tuple[Params, State], dict[str, Any]]


def _models(
    population: Population, matches: Matches, calibration: Any, repairable: Repairable | None
) -> dict[str, Described]:
    models: dict[str, Described] = {}
    for i in dict.fromkeys(match.pair[0] for match in matches.matches):
        model = member(population.params, i), member(population.state, i)
        models[f"model-{i}"] = model, {**anchors.facts(population, [i], model[0]), "of": _origin(population, i)}
    midpoints: dict[str, Described] = {}
    for match in matches.matches:
        first, second = match.pair
        moved = matches.applied(population, match)
        about = {"matched_by": match.method, "of": _origin(population, second), "to": _origin(population, first)}
        models[f"model-{second}-to-{first}-{match.method}"] = (
            moved,
            {**anchors.facts(population, [second], moved[0]), **about},
        )
        if repairable is not None:
            name = f"midpoint-{first}-{second}-{match.method}-repaired"
            midpoint = _midpoint(population, match, moved[0], calibration, repairable)
            if midpoint is None:
                console.print(
                    f"{name} is not written: it has layers without a bias that could hold their repaired shift"
                )
                continue
            both = [_origin(population, i) for i in match.pair]
            facts = {"matched_by": match.method, "fusion": "repaired midpoint", "merged": both, "weights": [0.5, 0.5]}
            midpoints[name] = (midpoint, ()), facts
    return models | midpoints


def _midpoint(
    population: Population, match: Match, moved: Params, calibration: Any, repairable: Repairable
) -> Params | None:
    module, preprocess = repairable
    ends = [member(population.params, match.pair[0]), moved]
    both = jax.tree.map(lambda x, y: np.stack([np.asarray(x), np.asarray(y)]), *ends)
    half = np.full(2, 0.5, np.float32)
    repaired = repair.repair(module, average_stacked(both, half), ends, half, calibration, preprocess=preprocess)
    return None if repaired.shift else repaired.params


def _origin(population: Population, i: int) -> dict[str, Any]:
    return {"run": population.models[i]["run"], "number": population.models[i]["number"]}

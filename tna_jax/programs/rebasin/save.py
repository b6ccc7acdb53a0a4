"""The matched models and the permutations that `tna rebasin` writes, and what is said of each model."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax import repair
from tna_jax.averaging import average_stacked
from tna_jax.ensemble import member
from tna_jax.io.permutations import StoredPermutation, save_permutations
from tna_jax.io.runs import OTHERWISE, recipe_of
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population import anchors, saving
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.rebasin.matches import Match, Matches
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.system import distributed

PERMUTATIONS = "permutations.json"
"""In --out."""


def write(
    settings: RebasinOptions, population: Population, matches: Matches, calibration: Any, repairable: Repairable | None
) -> list[str]:
    """Writes what --out and --permutations ask for; returns it in words.

    The models: those that others were matched to, unchanged; the matched ones with their statistics, by pair and method; and, where
    REPAIR can be done, the repaired midpoint of each pair. Of the first pairs (every model to the first) by one method, the
    models keep their numbers.
    """
    files = [] if settings.permutations is None else [Path(settings.permutations)]
    words = [str(file) for file in files]
    if settings.out is not None:
        models = _models(population, matches, calibration, repairable)
        described = {name: facts for name, (_, facts) in models.items()}
        folder = saving.write(
            settings.out, settings.format, settings.overwrite, population, {name: model for name, (model, _) in models.items()},
            described, settings.seed, {"matched": list(settings.runs)}, "matched",
        )  # fmt: skip
        files.append(folder / PERMUTATIONS)
        words.append(f"{len(models)} models ({', '.join(models)}) and {PERMUTATIONS} into {folder}")
    if distributed.is_main_process():
        for file in files:
            save_permutations(
                file,
                [StoredPermutation(match.pair, match.method, match.permutation) for match in matches.matches],
                units=matches.spec.groups,
                models=[_origin(population, i) for i in range(len(population.models))],
            )
    return words


Described = tuple[tuple[Params, State], dict[str, Any]]


def _models(
    population: Population, matches: Matches, calibration: Any, repairable: Repairable | None
) -> dict[str, Described]:
    models: dict[str, Described] = {}
    for i in dict.fromkeys(match.pair[0] for match in matches.matches):
        model = member(population.params, i), member(population.state, i)
        models[f"model-{i}"] = model, {**_anchors(population, i, model[0]), "of": _origin(population, i)}
    midpoints: dict[str, Described] = {}
    for match in matches.matches:
        first, second = match.pair
        moved = matches.applied(population, match)
        about = {"matched_by": match.method, "of": _origin(population, second), "to": _origin(population, first)}
        models[f"model-{second}-to-{first}-{match.method}"] = moved, {**_anchors(population, second, moved[0]), **about}
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


def _anchors(population: Population, i: int, written: Params) -> dict[str, Any]:
    """What plan.json says of a model's anchors; nothing where units with anchors have moved, and the mask with them."""
    model, config = population.models[i], population.configs[i]
    if config.get("program") in OTHERWISE or not all(key in model for key in saving.ANCHOR_FACTS):
        return {}
    try:
        recipe = recipe_of(config, model)
    except (ValueError, TypeError):
        return {}
    if recipe.ratio > 0 and anchors.moved(written, member(population.params, i), recipe)[1]:
        return {}
    return {key: model[key] for key in saving.ANCHOR_FACTS}

"""The matched models and the permutations that `tna rebasin` writes, and what is said of each model."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax import repair
from tna_jax.averaging import average_stacked
from tna_jax.io.permutations import StoredPermutation, save_permutations
from tna_jax.masks import Params
from tna_jax.networks import State
from tna_jax.programs.cli.progress import console
from tna_jax.programs.population import anchors, saving
from tna_jax.programs.population.load import Population
from tna_jax.programs.population.repairs import Repairable
from tna_jax.programs.population.staging import PERMUTATIONS
from tna_jax.programs.rebasin.matches import Matches
from tna_jax.programs.rebasin.options import ROTATION, RebasinOptions
from tna_jax.programs.rebasin.searches import TO_THE_MEAN
from tna_jax.programs.system import distributed


def write(
    settings: RebasinOptions, population: Population, matches: Matches, calibration: Any, repairable: Repairable | None
) -> list[str]:
    """Writes what --out and --permutations ask for; returns it in words.

    The models: those that others were matched to, unchanged, but for rotations in the form in which they are averaged; the matched
    ones with their statistics, by pair and method; and, where REPAIR can be done, the repaired midpoint of each pair. Of the first
    pairs (every model to the first) by one method, the models keep their numbers. A rotation is not among the permutations.
    """
    words, names = [], _names(matches)

    def permutations_into(file: Path) -> None:
        save_permutations(
            file,
            [
                StoredPermutation(match.pair, names[match.kind], match.permutation)
                for match in matches.matches
                if match.method != ROTATION
            ],
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
    names = _names(matches)
    firsts: dict[str, Described] = {}
    seconds: dict[str, Described] = {}
    midpoints: dict[str, Described] = {}
    for match in matches.matches:
        first, second = match.pair
        name = names[match.kind]
        reference, moved = matches.ends(population, match)
        turned = match.turned is not None
        if (called := f"model-{first}{'-turned' * turned}") not in firsts:
            form = {"matched_by": name} if turned else {}
            facts = anchors.facts(population, [first], reference[0])
            firsts[called] = reference, {**facts, **form, "of": _origin(population, first)}
        about = {"matched_by": name, "of": _origin(population, second), "to": _origin(population, first)}
        facts = anchors.facts(population, [second], moved[0])
        seconds[f"model-{second}-to-{first}-{name}"] = moved, {**facts, **about}
        if repairable is not None:
            called = f"midpoint-{first}-{second}-{name}-repaired"
            midpoint = _midpoint(reference[0], moved[0], calibration, repairable)
            if midpoint is None:
                console.print(
                    f"{called} is not written: it has layers without a bias that could hold their repaired shift"
                )
                continue
            both = [_origin(population, i) for i in match.pair]
            facts = {"matched_by": name, "fusion": "repaired midpoint", "merged": both, "weights": [0.5, 0.5]}
            midpoints[called] = (midpoint, ()), facts
    return firsts | seconds | midpoints


def _names(matches: Matches) -> dict[str, str]:
    """By kind of matching, the word for it in names of models: its method, which says all unless models were matched to their mean too."""
    methods = {match.kind: match.method for match in matches.matches}
    several = {kind for kind, method in methods.items() if list(methods.values()).count(method) > 1}
    return {
        kind: f"{method}-mean" if kind in several and kind.endswith(TO_THE_MEAN) else method
        for kind, method in methods.items()
    }


def _midpoint(first: Params, second: Params, calibration: Any, repairable: Repairable) -> Params | None:
    module, preprocess = repairable
    ends = [first, second]
    both = jax.tree.map(lambda x, y: np.stack([np.asarray(x), np.asarray(y)]), *ends)
    half = np.full(2, 0.5, np.float32)
    repaired = repair.repair(module, average_stacked(both, half), ends, half, calibration, preprocess=preprocess)
    return None if repaired.shift else repaired.params


def _origin(population: Population, i: int) -> dict[str, Any]:
    return {"run": population.models[i]["run"], "number": population.models[i]["number"]}

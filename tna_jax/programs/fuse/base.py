"""The base of task vectors: the initial values that all models of the runs share, or a model that the user names."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax.ensemble import member
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.restore import newest_parts
from tna_jax.io.run_folder import CONFIG
from tna_jax.io.runs import PARAMS, recipe_of
from tna_jax.masks import Params
from tna_jax.programs.population import anchors
from tna_jax.programs.population.load import Population
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.training.initial_models import ModelSpec, build

TRAINED_FROM_INITIAL = ("train", "lmc", "import")
"""Programs whose plan.json says from which initial values a model was trained."""
OTHER = "name the model that they were trained from with --base, or leave out"


class Base(NamedTuple):
    """A model from which all others were trained."""

    params: Params
    """On the host."""
    what: str
    """In words."""


def of_population(population: Population, path: str | None, methods: list[str]) -> Base:
    """Returns the base of task vectors.

    Args:
      population: the models.
      path: an exported file, or the folder of a run of one model; None: the initial values, drawn again.
      methods: those that need it, for errors.

    Raises:
      UsageError: the models have no initial values in common, or the file holds another network; or the anchors of the models are not
        those of the base.
    """
    first = member(population.params, 0)
    base = _initial(population, methods) if path is None else Base(_read(path, first), path)
    if (recipe := anchors.recipe(population)) is None:
        return base
    _, differing = anchors.moved(first, base.params, recipe)
    if differing:
        listed = ", ".join(f"{name} ({count})" for name, count in differing.items())
        raise UsageError(
            f"--method {' '.join(methods)}: the models' anchors have other values than {base.what}: {listed}. They were not trained from "
            f"it: {OTHER} {' '.join(methods)}"
        )
    return base


def _initial(population: Population, methods: list[str]) -> Base:
    """Draws the initial values of all models again."""
    needs = f"--method {' '.join(methods)} needs the base that the models were trained from"
    starts: dict[Any, tuple[dict[str, Any], ModelSpec]] = {}
    for model, config in zip(population.models, population.configs, strict=True):
        known = all(key in model for key in ("seed", "ratio", "method", "start"))
        if not known or config.get("program", "train") not in TRAINED_FROM_INITIAL:
            name = f"model {model['number']} of {model['run']}"
            raise UsageError(f"{needs}, and {name} does not say its initial values: {OTHER} them")
        spec = ModelSpec(model["seed"], model["ratio"], model["method"], model["start"], 0)
        starts.setdefault((spec, repr(recipe_of(config, model))), (config, spec))
    values = {(spec.seed, spec.start) for _, spec in starts.values()}
    if len(values) > 1:
        raise UsageError(
            f"{needs}; these start from {len(values)} different initial values (--init same has one): {OTHER} them"
        )
    drawn = [
        jax.tree.map(lambda leaf: leaf[0], build([spec], population.init, recipe_of(config, spec._asdict())).params)
        for config, spec in starts.values()
    ]
    leaves = [[np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)] for tree in drawn]
    if any(other != leaves[0] for other in leaves[1:]):
        raise UsageError(f"{needs}; the anchors of these start at {len(drawn)} different values: {OTHER} them")
    ((seed, start),) = values
    return Base(drawn[0], f"the initial values {start} of seed {seed}")


def _read(path: str, like: Params) -> Params:
    """Reads a base from an exported file, or the folder of a run of one model."""
    place = Path(path)
    if place.is_dir() and (place / CONFIG).is_file():
        _, arrays, _ = newest_parts(Run.open(path).checkpoints, "params")
        counts = {array.shape[:1] for array in arrays.values()}
        if counts != {(1,)}:
            raise UsageError(
                f"--base {path}: a run of several models; write one of them with tna export {path} --model I, and name the file"
            )
        arrays = {name: array[0] for name, array in arrays.items()}
    elif place.is_dir():
        raise UsageError(f"--base {path}: name a file of tna export, or a run folder of one model")
    else:
        arrays, _ = safetensors.read(path)
    part = PARAMS.removesuffix("/") if any(name.startswith(PARAMS) for name in arrays) else ""
    try:
        read: Params = safetensors.fill(jax.tree.map(np.asarray, like), arrays, part, path)
    except UsageError as error:
        raise UsageError(f"--base: {error}") from error
    if wrong := [name for name, array in arrays.items() if name.startswith(PARAMS) and not np.isfinite(array).all()]:
        raise UsageError(f"--base {path}: values that are not finite in {', '.join(wrong)}")
    return read

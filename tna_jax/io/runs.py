"""What a run folder says of its models: their anchors, drawn again from `config.json` and `plan.json`.

recipe = runs.anchor_recipe("runs/four", model=0)
mask = recipe.draw(params)                        # for parameters in any framework's tree
mask = runs.anchor_mask("runs/four", model=0)     # a nested dict; shapes are read from the run's checkpoint
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import Damaged
from tna_jax.io.restore import contents, listed, nested
from tna_jax.io.run_folder import CHECKPOINTS, CONFIG, PLAN, read_object, read_plan, require_run
from tna_jax.masks import AnchorRecipe, Mask

PARAMS = "params/"
"""What the names of parameters begin with in checkpoints and exported files; the rest is state, which has no anchors."""
OPTIONS = {
    "anchors": "kind", "where": "where", "soft": "soft", "anchor_values": "values", "anchor_scale": "scale",
    "trainable_scale": "trainable_scale",
}  # fmt: skip
"""Options of a run, as `config.json` names them, and the fields of the recipe that they are."""
BODY = "^(?!head)"
"""The leaves in which a soup of pretrained models has anchors: all but the classifier's."""
OTHERWISE = {
    "pretrain": "tna pretrain trains without anchors",
    "cold": "tna cold draws a mask in each iteration: AnchorRecipe(seed=, ratio=, where=).draw(params, key) with the iteration "
    "folded into the recipe's key",
    "federate": "tna federate draws a mask in each round: tna_jax.federated.of_round gives that of a round",
}  # fmt: skip
"""Programs whose runs have no mask that holds for all of the training, and what there is instead."""


def recipe_of(config: Mapping[str, Any], model: Mapping[str, Any]) -> AnchorRecipe:
    """Returns the recipe of a model's anchors.

    Args:
      config: options of the run; those that shape anchors are `OPTIONS`, one that is missing has the recipe's default.
      model: an entry of `plan.json`, which has the seed and the ratio.

    Raises:
      ValueError, TypeError: a value that is not allowed.
    """
    fields = {field: config[option] for option, field in (OPTIONS | {"freeze": "freeze"}).items() if option in config}
    return AnchorRecipe(seed=model["seed"], ratio=model["ratio"], **fields)


def anchor_recipe(run: str | os.PathLike[str], model: int = 0) -> AnchorRecipe:
    """Returns the recipe by which a run drew the anchors of a model.

    A model of the method `prune` has zeros at its anchors (`masks.prune`), whatever the recipe says of values.

    Args:
      run: a run folder of `tna train`, `tna lmc` or `tna soup`.
      model: the number of the model, as in `plan.json`.

    Raises:
      UsageError: not a run folder, no such model, or a run without one mask for all of the training.
    """
    folder = Path(run)
    require_run(folder)
    config = read_object(folder / CONFIG)
    program = config.get("program")
    if program in OTHERWISE:
        raise UsageError(f"{folder} has no mask that holds for all of its training: {OTHERWISE[program]}")
    models, _ = read_plan(folder)
    if not 0 <= model < len(models):
        raise UsageError(f"{folder} has no model {model}: its models are 0 to {len(models) - 1}")
    missing = [name for name in ("seed", "ratio") if name not in models[model]]
    if missing:
        raise UsageError(f"{folder / PLAN} does not say the {' and the '.join(missing)} of model {model}")
    try:
        if program == "soup":
            config = {"where": BODY, "freeze": config.get("freeze")}
        return recipe_of(config, models[model])
    except (ValueError, TypeError) as error:
        raise UsageError(f"{folder}: {error}") from error


def anchor_mask(run: str | os.PathLike[str], model: int = 0) -> Mask:
    """Draws the mask that a model of a run was trained under, as a nested dict with the names of the parameters.

    Args:
      run: a run folder with a checkpoint, whose list of contents has the shapes; arrays are not read.
      model: the number of the model, as in `plan.json`.

    Raises:
      UsageError: as `anchor_recipe`, or no checkpoint can be read.
    """
    return anchor_recipe(run, model).draw(_shapes(Path(run)))


def _shapes(folder: Path) -> dict[str, Any]:
    """The parameters of one model as shapes."""
    reasons = []
    for step in listed(folder / CHECKPOINTS):
        try:
            leaves = contents(folder / CHECKPOINTS, step)
        except Damaged as error:
            reasons.append(f"checkpoint {step}: {error}")
            continue
        shapes = {
            leaf.name: jax.ShapeDtypeStruct(leaf.shape[1:], np.float32)
            for leaf in leaves
            if leaf.name.startswith(PARAMS)
        }
        tree: dict[str, Any] = nested(shapes)["params"]
        return tree
    raise UsageError(f"{folder} has no checkpoint that can be read{': ' if reasons else ''}{'; '.join(reasons)}")

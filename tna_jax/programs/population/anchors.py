"""Which entries all models share, the check that a merged model holds them, bit for bit, and what may be said of a written model's mask."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import trees
from tna_jax.ensemble import member
from tna_jax.io.runs import OTHERWISE, recipe_of
from tna_jax.masks import AnchorRecipe, Params
from tna_jax.masks.operations import is_anchored
from tna_jax.merging.tensors import equal_in_all
from tna_jax.programs.population.load import Population

FACTS = ("seed", "ratio", "method")
"""What plan.json says of a model's anchors."""


class Shared(NamedTuple):
    """What stays as it is in every merged model."""

    entries: list[Any]
    """bool arrays (...) in the order of the leaves: equal in all models, and in the base, if there is one."""
    equal: int
    """How many."""


def shared(models: list[Params], base: Params | None = None) -> Shared:
    """Returns the entries that are equal in M models, bit for bit, and in the base, if there is one."""
    trees_of = [*models, *([] if base is None else [base])]
    columns = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in trees_of), strict=True)
    entries = [equal_in_all(list(column)) for column in columns]
    return Shared(entries, sum(int(part.sum()) for part in entries))


def recipe(population: Population) -> AnchorRecipe | None:
    """Returns the recipe of the fixed anchors that all models of a population were trained under; None if there is no such recipe."""
    recipes = []
    for model, config in zip(population.models, population.configs, strict=True):
        if config.get("program") in OTHERWISE or not all(key in model for key in ("seed", "ratio")):
            return None
        try:
            recipes.append(recipe_of(config, model))
        except (ValueError, TypeError):
            return None
    first = recipes[0]
    return first if all(other == first for other in recipes) and first.ratio > 0 and first.soft is None else None


def moved(model: Params, other: Params, of: AnchorRecipe) -> tuple[int, dict[str, int]]:
    """Returns how many entries a recipe anchors, and in how many of them two models differ, by the path of each leaf that does."""
    mask = of.draw(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.float32), model))
    count = 0
    differing: dict[str, int] = {}
    leaves = zip(trees.named_leaves(model), jax.tree.leaves(other), jax.tree.leaves(mask), strict=True)
    for (path, leaf), theirs, part in leaves:
        fixed = np.broadcast_to(is_anchored(part), np.shape(leaf))
        count += int(fixed.sum())
        wrong = int((~equal_in_all([np.asarray(leaf), np.asarray(theirs)]) & fixed).sum())
        differing |= {trees.name(path): wrong} if wrong else {}
    return count, differing


def verify(name: str, merged: Params, model: Params, kept: Shared) -> None:
    """Raises RuntimeError, which names all leaves, unless `merged` holds the shared entries of a model, bit for bit."""
    wrong = []
    leaves = zip(trees.named_leaves(merged), jax.tree.leaves(model), kept.entries, strict=True)
    for (path, leaf), source, entries in leaves:
        count = int((~equal_in_all([np.asarray(leaf), np.asarray(source)]) & entries).sum())
        wrong += [f"{trees.name(path)} ({count})"] if count else []
    if wrong:
        raise RuntimeError(f"{name} moved entries that all models share: {', '.join(wrong)}")


def facts(population: Population, of: Sequence[int], written: Params) -> dict[str, Any]:
    """Returns what plan.json says of the anchors of a model that was made of some of a population's.

    Nothing where the model does not hold their anchors, bit for bit: REPAIR rescales units and matching moves them, those with
    anchors among them; and models of several masks have none in common.

    Args:
      population: the models as they were trained.
      of: the numbers of those it was made of.
      written: its parameters.
    """
    recipes, described = [], [population.models[i] for i in of]
    for i, model in zip(of, described, strict=True):
        if population.configs[i].get("program") in OTHERWISE or not all(key in model for key in FACTS):
            return {}
        try:
            recipes.append(recipe_of(population.configs[i], model))
        except (ValueError, TypeError):
            return {}
    known = {key: described[0][key] for key in FACTS}
    if any(other != recipes[0] for other in recipes) or any(
        model[key] != known[key] for model in described for key in FACTS
    ):
        return {}
    if recipes[0].ratio > 0 and moved(written, member(population.params, of[0]), recipes[0])[1]:
        return {}
    return known

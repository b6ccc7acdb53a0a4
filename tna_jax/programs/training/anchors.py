"""Anchors from the options of a run: the recipe that draws them."""

from tna_jax.io.runs import OPTIONS, recipe_of
from tna_jax.masks import AnchorRecipe
from tna_jax.programs.cli.options import AnchorOptions


def recipe(options: AnchorOptions, seed: int = 0, ratio: float = 0.0) -> AnchorRecipe:
    """Returns the recipe of the anchors of a seed's models.

    Args:
      options: how anchors are drawn and which values they have.
      seed: of the models.
      ratio: share of ANCHORED entries, in [0, 1].
    """
    return recipe_of({name: getattr(options, name) for name in OPTIONS}, {"seed": seed, "ratio": ratio})

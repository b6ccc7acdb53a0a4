"""Settings of anchors that lower barriers, in a word: `--recipe`. They import no JAX."""

import dataclasses
from typing import Any, Literal, TypeVar

Recipe = Literal["heavy"]
RECIPES: dict[Recipe, dict[str, Any]] = {
    "heavy": {"anchors": "per-unit", "anchor_scale": 1.5, "trainable_scale": 0.1, "ratio": 0.4, "warmup_epochs": 2.0},
}
"""The options that a recipe stands for. `heavy`: 40 % of each unit's inputs at 1.5 times their initial values, so that a unit's output
keeps its size; all else in these layers starts at a tenth, and the learning rate warms up."""

Settings = TypeVar("Settings")
"""The options of a program, which it keeps."""


def expanded(settings: Settings) -> Settings:
    """Returns the options with those of their recipe in place; options that the user has set stay as they are.

    An option at its default counts as not set. A sweep over mask ratios becomes plain training beside the recipe's ratio. The warm-up lasts no longer than the training.
    """
    recipe = getattr(settings, "recipe", None)
    if recipe not in RECIPES:  # none, or one that is refused by the check of all options
        return settings
    options = dict(RECIPES[recipe])
    options["warmup_epochs"] = min(options["warmup_epochs"], float(max(settings.epochs, 0)))  # type: ignore[attr-defined]
    options["ratios"] = (0.0, options["ratio"])
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    changes = {
        name: value for name, value in options.items() if name in defaults and getattr(settings, name) == defaults[name]
    }
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]

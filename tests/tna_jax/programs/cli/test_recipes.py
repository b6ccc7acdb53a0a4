"""A recipe is one word for options, which a run records."""

import dataclasses

import pytest

from tests.parameters import slow
from tna_jax.io import runs
from tna_jax.programs.cli import options
from tna_jax.programs.cli.recipes import RECIPES, Recipe, expanded
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.train import run as train
from tna_jax.programs.train.options import TrainOptions
from tna_jax.programs.training.setup import result_options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stands_for_its_options(name):
    settings = expanded(TrainOptions(recipe=name))
    written_out = TrainOptions(recipe=name, **RECIPES[name])
    assert settings == written_out == expanded(settings)
    sweep = expanded(LmcOptions(recipe=name))
    assert sweep.ratios == (0.0, RECIPES[name]["ratio"]) and sweep.trainable_scale == 0.1
    assert {field.name for field in dataclasses.fields(options.Settings)} | {"ratio"} >= set(RECIPES[name])


def test_what_a_user_says_beside_it_stays():
    settings = expanded(LmcOptions(recipe="heavy", ratios=(0.2, 0.8), anchor_scale=3.0, epochs=1))
    assert (settings.ratios, settings.anchor_scale, settings.trainable_scale) == ((0.2, 0.8), 3.0, 0.1)
    assert settings.warmup_epochs == 1.0
    assert expanded(LmcOptions()) == LmcOptions()  # the control: no recipe, nothing is changed
    assert "recipe" not in result_options(LmcOptions())  # as runs from before recorded it


def test_all_recipes_are_choices():
    assert set(RECIPES) == set(Recipe.__args__)


@pytest.mark.parametrize("name", slow(*RECIPES))
def test_a_run_records_what_the_word_stood_for(name, tmp_path):
    sizes = {"members": 2, "epochs": 1, "depth": 1, "width": 8, "train_examples": 64}
    train.run(TrainOptions(recipe=name, out=str(tmp_path / "run"), **sizes))
    recipe = runs.anchor_recipe(tmp_path / "run")
    assert recipe.kind == "per-unit" and recipe.ratio == RECIPES[name]["ratio"]
    assert (recipe.scale, recipe.trainable_scale) == (RECIPES[name]["anchor_scale"], RECIPES[name]["trainable_scale"])

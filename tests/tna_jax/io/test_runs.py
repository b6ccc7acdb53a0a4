"""The anchors of finished runs: where the recipe says so the models have the same bits, and nowhere else."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tna_jax import io, masks
from tna_jax.io import runs
from tna_jax.io.errors import UsageError
from tna_jax.masks import AnchorRecipe
from tna_jax.programs.cli.main import main

OLD = Path(__file__).resolve().parents[2] / "data" / "old_runs"
WORDS = ["train", "--width", "16", "--depth", "1", "--epochs", "2", "--train-examples", "200", "--test-examples", "50",
         "--members", "2", "--init", "different", "--anchors", "exact", "--ratio", "0.3", "--seed", "5",
         "--where", "Dense", "--out", "two"]  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        assert main(WORDS) == 0
        return Path("two").absolute()


def flat(tree) -> np.ndarray:
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)])


@pytest.mark.slow
def test_the_anchors_of_a_run_are_found_again_and_are_equal_in_its_models(two):
    recipe = runs.anchor_recipe(two, model=1)
    assert recipe == AnchorRecipe("exact", 0.3, 5, "Dense")
    run = io.open_run(two)
    first, second = run.params(0), run.params(1)
    mask = recipe.draw(first)
    anchored = ~flat(mask)
    assert 0.29 < anchored.mean() < 0.31
    equal = flat(first) == flat(second)
    assert equal[anchored].all()
    assert equal[~anchored].mean() < 0.01  # from different initial values: nothing else is equal
    assert (flat(runs.anchor_mask(two)) == flat(mask)).all()
    other = flat(masks.exact(jax.random.key(5), first, 0.3, "Dense"))  # the seed's bare key draws other anchors
    assert not equal[~other].all()


@pytest.mark.parametrize("name", ["train", "lmc"])
def test_the_anchors_of_runs_written_before_are_found_too(name):
    run = io.open_run(OLD / name)
    recipes = [runs.anchor_recipe(run.path, i) for i in range(len(run.models))]
    assert [(r.seed, r.ratio) for r in recipes] == [(m["seed"], m["ratio"]) for m in run.models]
    stacked = run.params()
    for i, recipe in enumerate(recipes):
        anchored = ~flat(runs.anchor_mask(run.path, i))
        fellows = [j for j, other in enumerate(recipes) if other == recipe and
                   run.models[j].get("method") == run.models[i].get("method")]  # fmt: skip
        values = [flat(jax.tree.map(lambda leaf, j=j: leaf[j], stacked)) for j in fellows]
        assert all((other[anchored] == values[0][anchored]).all() for other in values)
        assert recipe.ratio == 0 or anchored.any()
        if len(values) > 1:
            assert (
                values[0][~anchored] != values[1][~anchored]
            ).mean() > 0.7  # weights of pixels that are always 0 stay


def copy(tmp_path: Path, config: dict | None = None, model: dict | None = None) -> Path:
    """A run folder of JSON files alone, changed."""
    folder = Path(shutil.copytree(OLD / "train", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    for name, change in (("config.json", config), ("plan.json", model)):
        value = json.loads((folder / name).read_text())
        (value if name == "config.json" else value["models"][0]).update(change or {})
        (folder / name).write_text(json.dumps(value))
    return folder


def test_every_option_of_a_run_reaches_the_recipe(tmp_path):
    options = {"anchors": "neurons", "where": "kernel", "soft": None, "anchor_values": "normal", "anchor_scale": 2.0,
               "trainable_scale": 0.5}  # fmt: skip
    assert options.keys() == runs.OPTIONS.keys()
    folder = copy(tmp_path, options, {"seed": 3, "ratio": 0.25})
    assert runs.anchor_recipe(folder) == AnchorRecipe("neurons", 0.25, 3, "kernel", None, "normal", 2.0, 0.5)


def test_a_soup_has_anchors_in_the_body_alone(tmp_path):
    recipe = runs.anchor_recipe(copy(tmp_path, {"program": "soup"}))
    mask = recipe.draw({"body": np.zeros(1000, np.float32), "head": np.zeros(1000, np.float32)})
    assert mask["head"].all()
    assert not mask["body"].all()


@pytest.mark.parametrize(("config", "model", "words"), [
    ({"program": "pretrain"}, {}, "trains without anchors"),
    ({"program": "cold"}, {}, "in each iteration"),
    ({"program": "federate"}, {}, "in each round"),
    ({"anchors": "bernuli"}, {}, "did you mean 'bernoulli'"),
    ({}, {"ratio": 40}, "got 40; did you mean 0.4"),
    ({}, {"seed": "x"}, "seed must be an int"),
])  # fmt: skip
def test_a_run_without_one_mask_is_refused(config, model, words, tmp_path):
    with pytest.raises(UsageError, match=words):
        runs.anchor_recipe(copy(tmp_path, config, model))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="is not a run folder"):
        runs.anchor_recipe(tmp_path)
    folder = copy(tmp_path)
    with pytest.raises(UsageError, match="has no model 99: its models are 0 to"):
        runs.anchor_recipe(folder, 99)
    with pytest.raises(UsageError, match="no checkpoint that can be read"):
        runs.anchor_mask(folder)
    plan = json.loads((folder / "plan.json").read_text())
    del plan["models"][0]["seed"]
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="does not say the seed of model 0"):
        runs.anchor_recipe(folder)

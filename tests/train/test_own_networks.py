"""Networks of a user's own: what is committed is not trained again, and the recipe is that of the command line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tna_jax.masks import AnchorRecipe
from train import own_networks, regression


def nothing_is_trained(*_):
    raise AssertionError("a finished case is trained again")


def test_committed_cases_are_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(own_networks, "RUNS", tmp_path)
    monkeypatch.setattr(own_networks, "_trained", nothing_is_trained)
    file = own_networks.RESULTS / "regression.json"
    stored = json.loads(file.read_text())
    again = own_networks.cases(regression.EXAMPLE, regression.SMALL, False)
    assert again["cases"] == own_networks.committed(file) and again["alphas"] == stored["alphas"]
    assert all(case["provenance"]["commit"] for case in again["cases"])
    with pytest.raises(AssertionError, match="trained again"):
        own_networks.cases(regression.EXAMPLE, regression.SMALL | {"epochs": 61}, False)


def test_a_case_that_was_just_finished_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(own_networks, "RUNS", tmp_path)
    monkeypatch.setattr(own_networks, "RESULTS", tmp_path / "none")
    monkeypatch.setattr(own_networks, "_trained", lambda *_: {"loss": np.ones(2)})
    first = own_networks.cases(regression.EXAMPLE, regression.SMALL, False)
    monkeypatch.setattr(own_networks, "_trained", nothing_is_trained)
    assert own_networks.cases(regression.EXAMPLE, regression.SMALL, False) == first
    assert [(c["init"], c["anchors"]) for c in first["cases"]] == [
        (i, a) for i in own_networks.INITS for a in own_networks.ANCHORS
    ]


def test_heavy_is_the_recipe_of_the_command_line():
    params = {"kernel": jnp.ones((10, 4)), "bias": jnp.ones(4)}
    recipe = AnchorRecipe(**own_networks.ANCHORS["heavy"])
    mask = recipe.draw(params)
    start = recipe.initial_values(params, params, mask)
    assert (~mask["kernel"]).sum(0).tolist() == [4] * 4 and jax.tree.all(jax.tree.map(jnp.all, mask["bias"]))
    np.testing.assert_allclose(start["kernel"], np.where(mask["kernel"], 0.1, 1.5), rtol=1e-6)

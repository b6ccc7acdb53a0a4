"""The plane through three models: distances, corners, and the program end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.landscape import run as landscape


def three(seed: int = 0):
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 4, 5)).astype(np.float32), "b": rng.normal(size=(3, 7)).astype(np.float32)}


def flat(tree, i: int) -> np.ndarray:
    return np.concatenate([tree["a"][i].ravel(), tree["b"][i]]).astype(np.float64)


def test_distances_in_the_plane_are_those_of_the_weights():
    models = three()
    where, lengths = landscape.coordinates(models)
    for (i, j), length in zip(((0, 1), (0, 2), (1, 2)), lengths, strict=True):
        assert np.linalg.norm(where[i] - where[j]) == pytest.approx(np.linalg.norm(flat(models, i) - flat(models, j)))
        assert length == pytest.approx(np.linalg.norm(where[i] - where[j]))


def test_weights_of_a_point_make_that_point_and_a_corner_is_its_model():
    where, _ = landscape.coordinates(three())
    np.testing.assert_allclose(landscape.barycentric(where, where), np.eye(3), atol=1e-12)
    point = np.array([[0.3, -1.0]])
    weights = landscape.barycentric(where, point)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ where, point)


def test_models_on_one_line_have_no_plane():
    models = three()
    line = {name: np.stack([leaf[0], leaf[1], 2 * leaf[1] - leaf[0]]) for name, leaf in models.items()}
    with pytest.raises(UsageError, match="one line"):
        landscape.coordinates(line)


@pytest.fixture(scope="module")
def ensemble(unaligned):
    return str(unaligned)


@pytest.mark.slow
def test_the_program_end_to_end(ensemble, capsys):
    assert main(["landscape", ensemble, "--points", "5", "--test-examples", "100"]) == 0
    plane = json.loads(Path(ensemble, "landscape.json").read_text())
    assert np.shape(plane["loss"]) == np.shape(plane["accuracy"]) == (5, 5)
    assert plane["examples"] == 100
    corners = np.array([[model["x"], model["y"]] for model in plane["models"]])
    assert [plane["soup"]["x"], plane["soup"]["y"]] == pytest.approx(corners.mean(0).tolist())
    trained = json.loads(Path(ensemble, "train.json").read_text())["models"]
    assert main(["landscape", ensemble, "--points", "5", "--models", "1", "0", "origin"]) == 0
    whole = json.loads(Path(ensemble, "landscape.json").read_text())
    for model, i in zip(whole["models"], (1, 0), strict=False):  # the models stand where they were trained to
        assert model["accuracy"] == pytest.approx(trained[i]["test_accuracy"])
        assert model["loss"] == pytest.approx(trained[i]["test_loss"], rel=1e-5)
    assert whole["models"][2]["name"] == "origin of 1" and whole["soup"] is None
    assert whole["models"][2]["loss"] > 1.5  # untrained
    assert "origin of 1" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "expected"), [
    (["--models", "0", "1", "3"], "numbers from 0 to 2"),
    (["--models", "0", "1"], "--models"),
    (["--models", "0", "1", "1"], "three different"),
    (["--points", "2"], "--points must be at least 3"),
    (["--margin", "-1"], "--margin"),
    (["--placement", "mapp"], "did you mean 'map'"),
])  # fmt: skip
def test_bad_options_are_answered_in_one_line(ensemble, capsys, words, expected):
    capsys.readouterr()
    assert main(["landscape", ensemble, *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 or "images" in said[0]
    assert expected in said[-1]

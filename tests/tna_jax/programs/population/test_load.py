"""Models of finished runs, loaded as one population: whose they are, what they have not seen, who is left out."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tna_jax.io.formats import FORMAT
from tna_jax.programs.cli.main import main
from tna_jax.programs.population.load import held_out, open_runs


@pytest.fixture(scope="module")
def run(unaligned):
    return unaligned


@pytest.fixture
def twin(run, tmp_path):
    """A copy of the run, as a run of its own."""
    return str(shutil.copytree(run, tmp_path / "twin"))


@pytest.mark.slow
def test_models_are_chosen_on_examples_they_have_not_seen(run):
    assert main(["fuse", str(run), "--alphas", "3"]) == 0
    opened = open_runs((str(run),), None)
    inputs, labels, unseen = held_out(opened, None, 5000)
    assert unseen and len(labels) == 1437 - 400
    seen = {image.tobytes() for image in opened.data.train.images}
    assert not any(np.asarray(image).tobytes() in seen for image in inputs[:300])
    assert read(run / "fuse.json")["held_out"] == {"examples": 1037, "unseen_in_training": True}
    whole = opened._replace(config={**opened.config, "train_examples": None})
    assert held_out(whole, None, 10)[2] is False  # there are no others: the report says so


def test_runs_are_one_population(run, twin):
    both, one = open_runs((str(run), twin), None), open_runs((str(run),), None)
    assert [model["number"] for model in both.models] == [0, 1, 2] * 2
    for whole, part in zip(jax.tree.leaves(both.params), jax.tree.leaves(one.params), strict=True):
        assert np.array_equal(whole[3:], part) and np.array_equal(whole[:3], part)


def test_chosen_models_are_those_models(run, twin):
    all_of_them, two = open_runs((str(run), twin), None), open_runs((str(run), twin), None, (5, 1))
    assert [model["number"] for model in two.models] == [2, 1]
    for whole, part in zip(jax.tree.leaves(all_of_them.params), jax.tree.leaves(two.params), strict=True):
        assert np.array_equal(whole[np.array([5, 1])], part)


def test_models_that_diverged_are_left_out_by_name(run, capsys, monkeypatch):
    from tna_jax.programs.population import load as module

    whole = module.finished

    def broken(folder, init):
        found = whole(folder, init)
        jax.tree.leaves(found[0])[0][1] = np.nan
        return found

    monkeypatch.setattr(module, "finished", broken)
    found = open_runs((str(run),), None)
    assert [model["number"] for model in found.models] == [0, 2] and len(jax.tree.leaves(found.params)[0]) == 2
    assert f"left out: model 1 of {run.name}, which diverged" in capsys.readouterr().err


def test_runs_of_other_networks_are_refused(run, capsys, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    config = read(run / "config.json")
    (other / "config.json").write_text(json.dumps({**config, "width": 17, "train_examples": 300}))
    assert main(["fuse", str(run), str(other)]) == 2
    assert "train_examples 300 instead of 400, width 17 instead of 16" in capsys.readouterr().err.replace("\n", " ")
    (other / "config.json").write_text(json.dumps({**config, "width": None, "depth": 3}))
    assert main(["fuse", str(run), str(other)]) == 2
    assert "depth 3 instead of 2, width 128 instead of 16" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("program", ["pretrain", "soup", "cold"])
@pytest.mark.parametrize("reader", ["fuse", "barrier", "landscape", "rebasin"])
def test_a_run_of_transformers_is_refused_as_one(program, reader, tmp_path, capsys):
    """Its options would make the network and the data of others, whose checkpoint then did not fit."""
    (tmp_path / "config.json").write_text(json.dumps({"format": FORMAT, "program": program}))
    said = fails(capsys, reader, str(tmp_path))
    assert f"{tmp_path} is a run of tna {program}: its models are transformers" in said

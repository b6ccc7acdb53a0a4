"""What is written of a population's models: folders whole or not at all, and no anchors that the written model does not hold."""

import os

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.fuse.populations import STATEFUL, population
from tna_jax import repair
from tna_jax.io.errors import UsageError
from tna_jax.masks import AnchorRecipe
from tna_jax.masks.operations import is_anchored
from tna_jax.programs.population import anchors, ends, staging

RNG = np.random.default_rng(0)
BASE = {"bias": RNG.normal(size=4).astype(np.float32), "kernel": RNG.normal(size=(3, 4)).astype(np.float32)}
MASK = jax.tree.map(lambda m: ~np.asarray(is_anchored(m)), AnchorRecipe(ratio=0.5, seed=3).draw(BASE))


def anchored(**fields):
    """Three models whose anchors hold the values of BASE."""
    trees = [jax.tree.map(lambda x, m, i=i: np.where(m, x + i, x).astype(np.float32), BASE, MASK) for i in range(3)]
    models = [{"run": "made", "number": i, "seed": 3, "ratio": 0.5, "method": "tna", **fields} for i in range(3)]
    return population(trees, models=models, configs=[{"program": "train", "anchors": "bernoulli"}] * 3), trees


def test_a_model_says_its_anchors_where_it_holds_them():
    made, trees = anchored()
    soup = jax.tree.map(lambda *x: np.mean(x, 0, dtype=np.float32), *trees)
    soup = jax.tree.map(np.where, MASK, soup, BASE)
    known = {"seed": 3, "ratio": 0.5, "method": "tna"}
    assert anchors.facts(made, [0, 1, 2], soup) == known == anchors.facts(made, [1], trees[1])
    rescaled = {**soup, "kernel": soup["kernel"] * np.float32(1.01)}
    moved = {"bias": soup["bias"][::-1], "kernel": soup["kernel"][:, ::-1]}
    assert anchors.facts(made, [0, 1, 2], rescaled) == {} == anchors.facts(made, [0, 1, 2], moved)


def test_models_of_other_anchors_or_of_none_have_none_in_common():
    made, trees = anchored()
    other = [{**made.models[0], "seed": 4}, *made.models[1:]]
    assert anchors.facts(made._replace(models=other), [0, 1], trees[0]) == {}
    assert anchors.facts(made._replace(configs=[{"program": "cold"}] * 3), [0], trees[0]) == {}
    assert anchors.facts(made._replace(models=[{"run": "made", "number": i} for i in range(3)]), [0], trees[0]) == {}
    plain, trees = anchored(ratio=0.0)
    assert anchors.facts(plain, [0, 1], BASE)["ratio"] == 0.0


def test_statistics_of_the_ends_are_estimated_again_or_refused():
    trees, inputs = [BASE, jax.tree.map(lambda x: x + 1, BASE)], RNG.normal(size=(20, 3)).astype(np.float32)
    made = population(trees, STATEFUL, {"mean": np.zeros((2, 3), np.float32)})
    again = ends.reset(made, inputs).state["mean"]
    for i, tree in enumerate(trees):
        expected = repair.reset_batch_stats(STATEFUL, tree, {"mean": np.zeros(3, np.float32)}, inputs)["mean"]
        np.testing.assert_array_equal(again[i], expected)
    assert np.abs(again[0] - again[1]).max() > 0.5
    ends.check(made)
    with pytest.raises(UsageError, match="--reset-ends: a linear network has no running statistics"):
        ends.check(population(trees))


def write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.safetensors").write_text(text)


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"

    def stopped():
        with staging.whole_folder(out) as staged:
            write(staged, "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / ".out.unfinished", "of a killed program")
    with staging.whole_folder(out) as staged:
        write(staged, "new")
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "a.safetensors").read_text() == "new"


def test_what_is_replaced_keeps_what_is_no_model(tmp_path):
    out = tmp_path / "out"
    write(out, "old")
    (out / "b.safetensors").write_text("old")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="stop"), staging.whole_folder(out):
        raise ValueError("stop")
    assert (out / "a.safetensors").read_text() == "old"
    with staging.whole_folder(out) as staged:
        write(staged, "new")
    assert sorted(path.name for path in out.iterdir()) == ["a.safetensors", "notes.txt"]
    assert (out / "a.safetensors").read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_programs_that_write_one_folder_do_not_mix_their_models(tmp_path):
    out = tmp_path / "out"
    with staging.whole_folder(out) as staged:
        write(staged, "of the first")
        with (
            pytest.raises(UsageError, match="out is being written by another program; wait for it, or name another"),
            staging.whole_folder(out) as other,
        ):
            write(other, "of the second")
        (staged / "b.safetensors").write_text("of the first")
    assert {path.read_text() for path in out.iterdir()} == {"of the first"} and list(tmp_path.iterdir()) == [out]


def test_a_program_that_was_killed_while_it_replaced_a_folder_takes_nothing_away(tmp_path):
    """Between two renames, and between the renames of what is no model."""
    out, replaced = tmp_path / "out", tmp_path / ".out.replaced"
    write(replaced, "old")
    (replaced / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="out exists; name another folder, or add --overwrite"):
        staging.check(out, False)
    assert (out / "a.safetensors").read_text() == "old" and (out / "notes.txt").read_text() == "mine"
    os.rename(out, replaced)
    write(out, "new")
    (out / "notes.txt").write_text("of today")
    with staging.whole_folder(out) as staged:
        write(staged, "newest")
    assert {path.name: path.read_text() for path in out.iterdir()} == {
        "a.safetensors": "newest", "notes.txt": "of today", "notes.txt.before": "mine",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [out]


def test_what_was_computed_of_replaced_models_goes_with_them(tmp_path):
    """`tna report` showed it as the new models' results."""
    out = tmp_path / "out"
    write(out, "old")
    for name in ("config.json", "train.json", "barrier.json", "barrier.png", "fuse.json", "mine.json"):
        (out / name).write_text("{}")
    with staging.whole_folder(out) as staged:
        write(staged, "new")
    assert sorted(path.name for path in out.iterdir()) == ["a.safetensors", "mine.json"]


def test_places_where_no_folder_may_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    write(tmp_path / "models", "x")
    for name, overwrite, expected in (
        ("file", True, "file is a file; a folder is written"),
        ("models", False, "models exists; name another folder, or add --overwrite"),
        ("notes", True, r"notes holds no models \(mine.txt\): --overwrite does not replace it"),
        ("file/below", False, "cannot write to --out .*file/below: "),
    ):
        with pytest.raises(UsageError, match=expected):
            staging.check(tmp_path / name, overwrite)
    staging.check(tmp_path / "models", True)
    staging.check(tmp_path / "new" / "deep", False)

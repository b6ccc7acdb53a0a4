"""`tna fuse --method` as a user runs it: table, files, anchors; refusals before any work; nothing of the test set chooses."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tests.tna_jax.programs.fuse.populations import initial, write_run
from tna_jax import connectivity, merging
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.main import main
from tna_jax.programs.fuse import base, report
from tna_jax.programs.fuse import run as fuse_run
from tna_jax.programs.population.load import held_out, open_runs
from tna_jax.programs.training.splits import splits

WORDS = [
    "--method",
    "ties",
    "regmean",
    "--method-options",
    "density=0.5",
    "strength=0.5,1",
    "scale=0.9",
    "--alphas",
    "3",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Three models near the initial values that they share, anchored; nothing was trained."""
    folder = tmp_path_factory.mktemp("near") / "run"
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def fused(run):
    """What `tna fuse` says of them, with the files it wrote."""
    out = run.parent / "fused"
    assert main(["fuse", str(run), *WORDS, "--out", str(out), "--format", "safetensors"]) == 0
    return read(run / "fuse.json"), out


@pytest.mark.slow
def test_a_method_gives_the_librarys_model_with_all_anchors(run, fused):
    result, out = fused
    merges = {merge["method"]: merge for merge in result["merges"]["methods"]}
    assert list(merges) == ["average", "ties", "regmean"]
    assert [merge["options"] for merge in merges["ties"]["tried"]] == [
        {"density": 0.5, "strength": strength, "elect": "sum"} for strength in (0.5, 1.0)
    ]
    opened = open_runs((str(run),), None)
    models = [jax.tree.map(lambda x, i=i: x[i], opened.params) for i in range(3)]
    _, start, recipe = initial()
    expected = merging.merge("ties", models, start, **merges["ties"]["options"])
    written = safetensors.load(out / "ties.safetensors", start, "params")
    mask = recipe.draw(start)
    for leaf, other, first, m in zip(*map(jax.tree.leaves, (written, expected, start, mask)), strict=True):
        anchored = ~np.asarray(m)
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
        assert np.asarray(leaf)[anchored].tobytes() == np.asarray(first)[anchored].tobytes()
    assert merges["ties"]["shared_entries"] == sum(int((~np.asarray(m)).sum()) for m in jax.tree.leaves(mask))
    about = json.loads(safetensors.read(out / "ties.safetensors")[1]["tna_jax"])
    assert about["model"]["options"] == merges["ties"]["options"] and about["mask"]["ratio"] == 0.4
    assert sorted(file.stem for file in out.glob("*.safetensors")) == ["best", "greedy", "regmean", "ties", "uniform"]


@pytest.mark.slow
def test_the_options_are_the_best_of_the_held_out_examples_and_scores_are_those_of_the_models(run, fused):
    result, out = fused
    opened = open_runs((str(run),), None)
    held = held_out(opened, None, 5000)
    assert result["held_out"] == {"examples": 437, "unseen_in_training": True}
    rows = {(row["fusion"], row["split"]): row for row in result["rows"]}
    uniform = {key: rows["uniform soup", "test"][key] for key in ("accuracy", "loss")}
    assert result["merges"]["methods"][0]["test"] == pytest.approx(uniform, rel=1e-5)
    for merge in result["merges"]["methods"][1:]:
        best = max(merge["tried"], key=lambda one: (one["accuracy"], -one["loss"]))
        assert merge["options"] == best["options"] and merge["held_out"]["accuracy"] == best["accuracy"]
        like = jax.tree.map(lambda x: x[0], opened.params)
        model = safetensors.load(out / f"{merge['method']}.safetensors", like, "params")
        stacked = jax.tree.map(lambda x: jnp.asarray(x)[None], model)
        found = connectivity.evaluate(opened.network, stacked, {**splits(opened.data), "held": held[:2]})
        for split, score in (("held", merge["held_out"]), ("test", merge["test"]), ("train", merge["train"])):
            assert float(found[split].accuracy[0]) == pytest.approx(score["accuracy"], abs=1e-6)
        assert rows[merge["method"], "test"]["accuracy"] == merge["test"]["accuracy"]


@pytest.mark.slow
def test_the_table_says_what_chose(fused):
    described = report.describe(fused[0])
    table = described.tables[1]
    assert table.caption == "Merging methods, options chosen on 437 training examples not seen in training"
    assert table.heads == ["method", "options", "held-out accuracy", "test accuracy", "ends' mean"]
    assert [row[0] for row in table.rows] == ["average", "ties", "regmean"]
    assert table.rows[1][1].startswith("density 0.5, strength ") and table.rows[2][1] == "scale 0.9"
    assert "base of task vectors: the initial values 0 of seed 0" in described.remarks
    widths = [
        max(len(row[i]) for row in [*table.rows, ["task_arithmetic", "density 0.8, strength 0.75", *["accuracy"] * 3]])
        for i in range(5)
    ]
    assert sum(widths) + 2 * 5 <= 80


@pytest.mark.slow
def test_a_rerun_gives_the_same_bytes_whatever_the_test_set_holds(run, fused, monkeypatch, tmp_path):
    """Every method; the second run has other test labels: all choices stay, test scores alone differ."""
    true = fuse_run.splits
    words = [
        "--method",
        "ties",
        "dare_ties",
        "della",
        "fisher",
        "regmean",
        "model_stock",
        "--alphas",
        "3",
        "--format",
        "safetensors",
    ]
    results = []
    for name, change in (("a", 0), ("b", 3)):
        monkeypatch.setattr(fuse_run, "splits", lambda data, change=change: {
            "train": true(data)["train"], "test": (true(data)["test"][0], (true(data)["test"][1] + change) % 10)
        })  # fmt: skip
        assert main(["fuse", str(run), *words, "--out", str(tmp_path / name)]) == 0
        results.append(read(run / "fuse.json")["merges"]["methods"])
    for first, second in zip(*results, strict=True):
        assert first["test"] != second["test"]
        assert {**first, "test": 0} == {**second, "test": 0}
    files = sorted((tmp_path / "a").iterdir())
    assert len(files) == 9
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


@pytest.mark.slow
def test_only_what_holds_its_anchors_is_written_with_its_mask(run, fused, tmp_path):
    """REPAIR rescales units, those with anchors among them; the best model is not repaired."""
    words = [
        "--repair",
        "--alphas",
        "3",
        "--method",
        "regmean",
        "--method-options",
        "scale=0.9",
        "--format",
        "safetensors",
    ]
    assert main(["fuse", str(run), *words, "--out", str(tmp_path / "repaired")]) == 0
    _, start, recipe = initial()
    fixed = jax.tree.map(lambda m: ~np.asarray(m), recipe.draw(start))
    for folder, names in ((fused[1], ()), (tmp_path / "repaired", ("uniform", "regmean"))):
        for file in sorted(folder.glob("*.safetensors")):
            about = json.loads(safetensors.read(file)[1]["tna_jax"])
            params = safetensors.load(file, start, "params")
            held = all(
                np.asarray(leaf)[f].tobytes() == np.asarray(first)[f].tobytes()
                for leaf, first, f in zip(*map(jax.tree.leaves, (params, start, fixed)), strict=True)
            )
            assert held == (about["mask"] is not None) == ("ratio" in about["model"]), file
            assert file.stem not in names or not held


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--method tise", "did you mean 'ties'"),
        ("--method ties ties", "--method names ties more than once"),
        ("--method-options density=1", "--method-options: for merging methods, name one or more with --method"),
        ("--base x --merge-examples 9", "--base, --merge-examples: for merging methods"),
        ("--method fisher --base x", "--base: fisher merges the models themselves"),
        ("--method ties --matching weight", "whose units --matching does not move"),
        ("--method slerp", "--method slerp merges 2 models, got 3"),
        ("--method ties --method-options densty=1", "ties has density, strength, elect"),
        ("--method ties --base gone.safetensors", "gone.safetensors: No such file"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_any_work(run, capsys, monkeypatch, words, expected):
    monkeypatch.setattr(fuse_run.fusion_methods, "fuse", None)
    assert expected in fails(capsys, "fuse", str(run), *words.split())


def test_models_of_different_starts_need_a_base(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuse_run.fusion_methods, "fuse", None)
    write_run(tmp_path / "apart", starts=(0, 1, 2))
    message = fails(capsys, "fuse", "apart", "--method", "ties", "fisher", "dare_ties")
    assert message.startswith("tna fuse: --method ties dare_ties needs the base that the models were trained from")
    assert "3 different initial values" in message and "--base" in message


def test_a_base_is_read_and_must_hold_the_models_anchors(run, tmp_path):
    opened = open_runs((str(run),), None)
    drawn = base.of_population(opened, None, ["ties"])
    safetensors.save("base.safetensors", {"params": drawn.params})
    read_again = base.of_population(opened, "base.safetensors", ["ties"])
    for leaf, other in zip(*map(jax.tree.leaves, (drawn.params, read_again.params)), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
    safetensors.save("other.safetensors", {"params": jax.tree.map(lambda x: x + 1, drawn.params)})
    safetensors.save("small.safetensors", {"params": {"w": np.zeros(3, np.float32)}})
    shutil.copytree(run, "several")
    for place, expected in (
        ("other.safetensors", r"have other values than other.safetensors: Dense_0/bias \(2\), Dense_0/kernel \(143\)"),
        ("small.safetensors", "--base: small.safetensors does not fit this tree; missing: Dense_0/bias"),
        ("several", "--base several: a run of several models"),
        (str(tmp_path), "name a file of tna export"),
    ):
        with pytest.raises(UsageError, match=expected):
            base.of_population(opened, place, ["ties"])

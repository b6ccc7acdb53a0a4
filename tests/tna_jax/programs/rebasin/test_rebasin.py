"""`tna rebasin` as a user runs it: before, after and repaired; refusals."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.commands import read
from tna_jax import io, matching, models, networks
from tna_jax.ensemble import member
from tna_jax.io import safetensors
from tna_jax.programs.cli.main import main
from tna_jax.programs.population.load import open_runs
from tna_jax.programs.rebasin import report
from tna_jax.programs.reports.figures import Correlations
from tna_jax.programs.training.splits import training_inputs


@pytest.fixture(scope="module")
def run(unaligned):
    return unaligned


@pytest.fixture(scope="module")
def aligned(run):
    """Where `tna rebasin` wrote the matched models; its results are in the run."""
    out = run.parent / "aligned"
    assert main(["rebasin", str(run), "--alphas", "3", "--restarts", "2", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_rebasin_compares_before_after_and_repaired(run, aligned):
    result = read(run / "rebasin.json")
    rows = {(row["kind"], *row["pair"]): row for row in result["rows"] if row["split"] == "test"}
    kinds = list(dict.fromkeys(kind for kind, *_ in rows))
    assert kinds == ["unmatched"] + [f"{m} matching{r}" for m in ("weight", "activation") for r in ("", " + REPAIR")]
    for kind in kinds[1:]:
        for pair in ((0, 1), (0, 2)):
            ends = rows["unmatched", *pair]["accuracy_ends"]
            assert rows[kind, *pair]["accuracy_ends"] == pytest.approx(ends, abs=0.011)  # the same functions
            assert rows[kind, *pair]["moved"] > 0
        before, after = (sum(rows[k, 0, j]["accuracy_barrier"] for j in (1, 2)) for k in ("unmatched", kind))
        assert after < before / 2
    assert (
        rows["weight matching", 0, 1]["sweeps"] > 1 and rows["activation matching", 0, 1]["sweeps"] == 2
    )  # one a start
    assert (run / "rebasin.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_matched_models_are_written_and_the_file_of_permutations_gives_their_bytes(run, aligned):
    before, after = open_runs((str(run),), None), open_runs((str(aligned),), None)
    inputs = training_inputs(before.data, 16)
    spec = matching.permutation_spec(before.exact, member(before.params, 0), inputs)
    stored = io.load_permutations(aligned / "permutations.json")
    assert [(each.pair, each.method) for each in stored] == [
        ((0, j), method) for j in (1, 2) for method in ("weight", "activation")
    ]
    assert [model.get("matched_by") for model in after.models[:5]] == [None, *(each.method for each in stored)]
    assert [model["of"]["number"] for model in after.models[:5]] == [0, 1, 1, 2, 2]
    assert [model.get("fusion") for model in after.models[5:]] == ["repaired midpoint"] * 4
    expected = [member(before.params, 0)]
    expected += [matching.apply_permutation(spec, s.permutation, member(before.params, s.pair[1])) for s in stored]
    for i, params in enumerate(expected):
        written = member(after.params, i)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(*map(jax.tree.leaves, (written, params)), strict=True))


@pytest.mark.slow
def test_groups_are_more_alike_after_matching(run, aligned):
    result = read(run / "rebasin.json")
    assert {row["group"] for row in result["groups"]} == {"Dense_0", "Dense_1"}
    stored = {
        (each.pair, each.method): each.permutation for each in io.load_permutations(aligned / "permutations.json")
    }
    for row in result["groups"]:
        order = stored[tuple(row["pair"]), row["method"]][row["group"]]
        assert row["units"] == len(order) and row["moved"] == (order != np.arange(len(order))).sum()
        assert row["similarity_after"] > row["similarity_before"] + 0.05
    picture = result["correlations"]
    first = stored[tuple(picture["pair"]), picture["method"]][picture["group"]]
    np.testing.assert_allclose(np.array(picture["before"])[:, first], picture["after"], atol=2e-3)
    described = report.describe(result)
    (table,) = [table for table in described.tables if "hidden units" in table.caption]
    assert table.rows[0][:3] == ["weight", "Dense_0", "16"]
    titles = [figure.title for figure in described.figures if isinstance(figure, Correlations)]
    assert titles == [f"Units of Dense_0, {when} weight matching" for when in ("before", "after")]


def test_a_file_that_holds_no_permutation_is_refused(tmp_path):
    file = tmp_path / "permutations.json"
    io.save_permutations(file, [io.StoredPermutation((0, 1), "weight", {"a": np.array([1, 1]), "b": np.array([1, 0])})])
    with pytest.raises(io.UsageError, match=r"not permutations of the units of a group: a of 0-1$"):
        io.load_permutations(file)
    file.write_text("[]")
    with pytest.raises(io.UsageError, match="no list of matchings"):
        io.load_permutations(file)


def test_one_file_is_refused_before_a_run_is_made_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    init = networks.linen(models.create("mlp", num_classes=10, depth=1, width=3), (8, 8, 1))[1]
    about = {"format": 1, "config": {"dataset": "digits", "model": "mlp", "depth": 1, "width": 3}, "model": {}}
    params = jax.tree.map(np.asarray, init(jax.random.key(0))[0])
    safetensors.save("one.safetensors", {"params": params}, {"tna_jax": json.dumps(about)})
    assert main(["rebasin", "one.safetensors"]) == 2
    assert "one.safetensors holds one model; matching needs two" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_exported_files_are_matched_and_written_as_files(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in (0, 1):
        assert main(["export", str(run), "--model", str(i), "--out", f"{i}.safetensors"]) == 0
    words = ["--methods", "weight", "--no-repair", "--alphas", "3", "--group", "Dense_1", "--permutations", "p.json"]
    assert main(["rebasin", "0.safetensors", "1.safetensors", *words, "--out", "files", "--format", "safetensors"]) == 0
    assert sorted(file.name for file in Path("files").iterdir()) == [
        "model-0.safetensors", "model-1-to-0-weight.safetensors", "permutations.json"
    ]  # fmt: skip
    assert Path("p.json").read_bytes() == Path("files/permutations.json").read_bytes()
    (imported,) = Path("runs").iterdir()
    assert read(imported / "rebasin.json")["correlations"]["group"] == "Dense_1"
    files = [str(file) for file in sorted(Path("files").glob("*.safetensors"))]
    assert main(["rebasin", *files, *words[:-2]]) == 0
    (again,) = [folder for folder in Path("runs").iterdir() if folder != imported]
    assert {row["moved"] for row in read(again / "rebasin.json")["groups"]} == {0}  # they are in one order


@pytest.mark.slow
def test_all_models_may_be_matched_to_their_mean(run, tmp_path):
    out = tmp_path / "mean"
    assert main(["rebasin", str(run), "--to", "mean", "--no-repair", "--alphas", "3", "--out", str(out)]) == 0
    result, before, after = read(run / "rebasin.json"), open_runs((str(run),), None), open_runs((str(out),), None)
    assert result["options"]["to"] == "mean" and result["options"]["restarts"] == 4 and result["joint"]["rounds"] > 1
    assert {row["kind"] for row in result["rows"]} == {"unmatched", "weight matching to the mean"}
    assert any("matched to their mean at once" in line for line in report.describe(result).remarks)
    spec = matching.permutation_spec(before.exact, member(before.params, 0), training_inputs(before.data, 16))
    merged = matching.merge_many(spec, before.params, key=jax.random.key(0), restarts=4)
    assert len(after.models) == 3  # in the order of the first, which stays as it is
    for i in range(3):
        expected = matching.apply_permutation(spec, merged.between(0, i), member(before.params, i))
        leaves = zip(*map(jax.tree.leaves, (member(after.params, i), expected)), strict=True)
        assert all(a.tobytes() == np.asarray(b).tobytes() for a, b in leaves)


@pytest.mark.slow
def test_to_the_first_and_to_the_mean_stand_side_by_side(run, tmp_path):
    out = tmp_path / "both"
    words = ["rebasin", str(run), "--no-repair", "--alphas", "3", "--restarts", "2"]
    assert main([*words, "--to", "first", "mean", "--methods", "weight", "--out", str(out)]) == 0
    both, files = read(run / "rebasin.json"), io.load_permutations(out / "permutations.json")
    alone = {}
    for to, kind in (("0", "weight matching"), ("mean", "weight matching to the mean")):
        assert main([*words, "--to", to, "--methods", "weight"]) == 0
        alone[kind] = read(run / "rebasin.json")
    assert both["options"]["to"] == ["first", "mean"] and both["joint"]["restarts"] == 2
    table = report.describe(both).tables[0]
    assert [row[0] for row in table.rows] == ["unmatched", *alone]
    for kind, result in alone.items():
        rows, expected = (
            [row["accuracy_barrier"] for row in each["rows"] if row["kind"] == kind] for each in (both, result)
        )
        assert rows == expected and len(rows) == 4
    assert [each.method for each in files] == ["weight", "weight-mean"] * 2
    assert len(open_runs((str(out),), None).models) == 5
    groups = [table for table in report.describe(both).tables if "hidden units" in table.caption]
    assert [row[0] for row in groups[0].rows] == ["weight"] * 2 + ["weight to the mean"] * 2


TRANSFORMER = ["--width", "8", "--depth", "1", "--heads", "2", "--patch", "4", "--epochs", "3", "--train-examples", "300", "--test-examples",
               "100", "--members", "2", "--init", "different"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit", "dinov2"])
def test_transformers_are_turned(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", model, *TRANSFORMER, "--ratio", "0.3", "--out", "vit"]) == 0
    assert main(["rebasin", "vit", "--methods", "rotation", "--no-repair", "--alphas", "3", "--out", "turned"]) == 0
    result, before, after = read(Path("vit/rebasin.json")), open_runs(("vit",), None), open_runs(("turned",), None)
    rows = {row["kind"]: row for row in result["rows"] if row["split"] == "test"}
    assert rows["rotation matching"]["loss_ends"] == pytest.approx(rows["unmatched"]["loss_ends"], rel=1e-4)
    assert rows["rotation matching"]["objective"] > 0 and rows["rotation matching"]["rounds"] > 0
    x = training_inputs(before.data, 16)
    assert [model["matched_by"] for model in after.models] == ["rotation"] * 2
    for i in range(2):
        old, new = (np.asarray(each.exact(member(each.params, i), x)) for each in (before, after))
        assert np.abs(old - new).max() < 1e-4 * np.abs(old).max()
        assert "ratio" not in after.models[i]  # the anchors are gone
    described = report.describe(result)
    assert any("rotations took" in line for line in described.remarks)
    (groups,) = (table for table in described.tables if "hidden units" in table.caption)
    assert "turned" in [row[3] for row in groups.rows]
    capsys.readouterr()
    assert io.load_permutations("turned/permutations.json") == []
    assert main(["rebasin", "vit", "--methods", "rotation", "--norms", "body/layer_*/norm1=body/layer_*/query"]) == 2
    assert "--methods rotation does not go with" in capsys.readouterr().err


@pytest.mark.slow
def test_matched_models_with_batch_norm_are_written_with_their_statistics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--norm",
        "batch",
        "--width",
        "8",
        "--depth",
        "2",
        "--epochs",
        "2",
        "--train-examples",
        "200",
        "--members",
        "2",
    ]
    assert main(["train", *words, "--ratio", "0", "--init", "different", "--out", "norm"]) == 0
    shown = ["--methods", "weight", "--alphas", "3", "--calibration-examples", "100"]
    assert main(["rebasin", "norm", *shown, "--out", "matched"]) == 0
    plain = read(Path("norm/rebasin.json"))
    before, after = open_runs(("norm",), None), open_runs(("matched",), None)
    assert [model["of"]["number"] for model in after.models] == [0, 1]  # and no repaired midpoint: BatchNorm is reset
    inputs = training_inputs(before.data, 64)
    for i in range(2):
        old, new = (
            networks.evaluate(each.exact, member(each.params, i), member(each.state, i), inputs)
            for each in (before, after)
        )
        np.testing.assert_allclose(old, new, rtol=1e-3, atol=1e-4)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before.state, after.state)), strict=True))
    assert main(["rebasin", "norm", *shown, "--reset-ends"]) == 0
    again = read(Path("norm/rebasin.json"))
    ends, middles = (
        [[row[name] for row in result["rows"]] for result in (plain, again)] for name in ("loss_ends", "loss_midpoint")
    )
    assert ends[0] != ends[1] and middles[0] == pytest.approx(middles[1], rel=1e-5)
    assert any("estimated again" in line for line in report.describe(again).remarks)


@pytest.mark.slow
def test_methods_and_pairs_may_be_named(run):
    assert main(["rebasin", str(run), "--alphas", "3", "--methods", "weight", "--no-repair", "--pairs", "2-1"]) == 0
    named = read(run / "rebasin.json")["rows"]
    assert {(row["kind"], *row["pair"]) for row in named} == {("unmatched", 2, 1), ("weight matching", 2, 1)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rebasin RUN --methods weights", "did you mean 'weight'"),
        ("rebasin RUN --restarts 0", "--restarts must be at least 1"),
        ("rebasin RUN --pairs 0-3", "--pairs 0-3: write I-J with two different numbers from 0 to 2"),
        ("rebasin RUN --group Dense_9", "--group Dense_9: the groups of this network are Dense_0, Dense_1"),
        ("rebasin RUN --out RUN --overwrite", "is a run that is read; name another folder"),
        ("rebasin RUN --out PARENT", "exists; name another folder, or add --overwrite"),
        ("rebasin RUN --out NEW --format hf", "--format hf: "),
        ("rebasin RUN --permutations PARENT", "name a file in a folder that exists"),
        ("rebasin RUN a.safetensors", "name runs or files of tna export, not both"),
        ("rebasin RUN --seed -1", "--seed must lie in 0 to 4294967295"),
        ("rebasin RUN --to 3", "--to 3: there is no such model; the numbers go from 0 to 2"),
        ("rebasin RUN --to meen", "--to must be mean, first or the number of a model, got meen"),
        ("rebasin RUN --to gone/run", "--to must be mean, first or the number of a model, got gone/run"),
        ("rebasin RUN --to mean --methods activation", "--to mean matches by weights: leave out --methods activation"),
        ("rebasin RUN --to 0 1", "--to must name one model, mean, or both, got 0 1"),
        ("rebasin RUN --to first mean --methods activation", "add weight to --methods activation, or leave them out"),
        ("rebasin RUN --to mean --methods weight rotation", "leave out --methods weight rotation, or add --to first"),
        ("rebasin RUN --norms norm1=query", "--norms says what --methods rotation turns"),
        ("rebasin RUN --methods rotation --norms norm1", "--norms must be written NORM=LAYER,LAYER, got norm1"),
        ("rebasin RUN --layer-scales g=out", "--layer-scales goes with --norms: name the norms of the network too"),
        ("rebasin RUN --layer-scales g", "--layer-scales must be written FACTOR=LAYER,LAYER, got g"),
        (
            "rebasin RUN --methods rotation --permutations p.json",
            "a rotation is no permutation; --out writes the models",
        ),
        ("rebasin RUN --methods rotation", "of a Transformer with norms first; mlp 2x16 is not known to be one"),
        ("rebasin RUN --to 1 --pairs 0-1", "--pairs says which model is matched to which: leave out --to 1"),
        (
            "rebasin RUN --methods weight weight",
            "--methods must name one or more, each once; got weight more than once",
        ),
        ("rebasin RUN --reset-ends", "--reset-ends: mlp 2x16 has no running statistics"),
        ("rebasin RUN --format hf", "--format does nothing without --out"),
        ("rebasin RUN --overwrite", "--overwrite does nothing without --out or --permutations"),
        ("rebasin a.safetensors b.safetensors --to 2", "--to 2: there is no such model; the numbers go from 0 to 1"),
    ],
)
def test_bad_options_are_answered_in_one_line(run, capsys, words, expected):
    assert main(words.replace("RUN", str(run)).replace("PARENT", str(run.parent)).split()) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected.replace("RUN", str(run)) in message and "Traceback" not in message

"""`tna fuse` as a user runs it: the numbers of the library's functions, matched models, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.programs.commands import read
from tna_jax import connectivity, uniform_soup
from tna_jax.metrics import classification
from tna_jax.programs.cli.main import main
from tna_jax.programs.fuse import report as fuse_report
from tna_jax.programs.population import fusion_methods, repairs
from tna_jax.programs.population.load import open_runs
from tna_jax.programs.reports import png
from tna_jax.programs.training.splits import splits


@pytest.fixture(scope="module")
def run(unaligned):
    return unaligned


def fuse(run, *words):
    assert main(["fuse", str(run), "--alphas", "3", *words]) == 0
    return read(run / "fuse.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def plain(run, folder):
    """What `tna fuse` finds without matching; the fused models are written as a run."""
    return fuse(run, "--out", str(folder / "run"))


def test_fusions_are_those_of_the_library(run, plain):
    opened = open_runs((str(run),), None)
    data = splits(opened.data)
    rows = {(row["fusion"], row["split"]): row for row in plain["rows"]}
    names = ["best single", "mean of members", "uniform soup", "greedy soup", "logit ensemble"]
    assert list(dict.fromkeys(row["fusion"] for row in plain["rows"])) == names
    assert rows["uniform soup", "test"]["examples"] == 200
    soup = jax.tree.map(lambda leaf: leaf[None], uniform_soup(opened.params))
    alone = connectivity.evaluate(opened.network, soup, data)
    logits = np.mean(
        [opened.network(jax.tree.map(lambda x, i=i: x[i], opened.params), data["test"][0]) for i in range(3)], 0
    )
    together = classification(jnp.asarray(logits), data["test"][1], jnp.ones(200))
    members = connectivity.evaluate(opened.network, opened.params, data)
    for split in ("train", "test"):
        assert rows["uniform soup", split]["accuracy"] == pytest.approx(alone[split].accuracy[0], abs=1e-6)
        assert rows["mean of members", split]["member_accuracy"] == pytest.approx(members[split].accuracy.tolist())
    assert rows["logit ensemble", "test"]["accuracy"] == pytest.approx(float(together.accuracy), abs=1e-6)
    assert rows["logit ensemble", "test"]["loss"] == pytest.approx(float(together.loss), rel=1e-5)
    trail = plain["greedy"]["trail"]
    assert rows["best single", "test"]["models"] == [trail[0]["model"]]
    assert trail[0]["own"] == max(step["own"] for step in trail) and plain["greedy"]["score"] >= trail[0]["own"]
    assert rows["greedy soup", "test"]["models"] == sorted(step["model"] for step in trail if step["kept"])
    for row in plain["pairs"]:
        for name in ("accuracy", "loss"):
            left, middle, right = row[f"{name}_path"]
            assert row[f"{name}_ends"] == [left, right] and row[f"{name}_midpoint"] == middle
            fallen = (left + right) / 2 - middle if name == "accuracy" else middle - (left + right) / 2
            assert row[f"{name}_barrier"] == pytest.approx(max(fallen, 0), abs=1e-6)
        member = rows["mean of members", row["split"]]["member_accuracy"]
        assert row["accuracy_ends"] == pytest.approx([member[i] for i in row["pair"]])
    assert plain["alphas"] == [0, 0.5, 1] and {row["kind"] for row in plain["pairs"]} == {"as trained"}
    assert len(plain["pairs"]) == 2 * 3 and (run / "fuse.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_matching_and_repair_help_where_models_are_not_aligned(run, plain):
    fused = {
        "plain": plain,
        "weight": fuse(run, "--matching", "weight"),
        "repaired": fuse(run, "--matching", "activation", "--repair"),
    }
    tables = {
        name: {row["fusion"]: row["accuracy"] for row in result["rows"] if row["split"] == "test"}
        for name, result in fused.items()
    }
    for name, result in fused.items():
        assert tables[name]["mean of members"] == pytest.approx(tables["plain"]["mean of members"], abs=1e-6)
        kinds = {row["kind"]: [] for row in result["pairs"]}
        assert len(kinds) == (2 if name == "repaired" else 1)
        for row in result["pairs"]:
            kinds[row["kind"]] += [row["loss_midpoint"]] if row["split"] == "test" else []
            if "REPAIR" in row["kind"]:  # a point that is an end stays as it is
                ends = next(r for r in result["pairs"] if (r["pair"], r["split"]) == (row["pair"], row["split"]))
                assert row["loss_ends"] == pytest.approx(ends["loss_ends"], rel=1e-4)
        if name == "repaired":
            assert np.mean(kinds["activation matching + REPAIR"]) < np.mean(kinds["activation matching"])
        assert (result["matched"] is None) == (name == "plain") and result["options"]["repair"] == (name == "repaired")
        if name != "plain":
            assert max(one["moved"] for one in result["matched"]["models"]) > 0
            assert tables[name]["uniform soup"] > tables["plain"]["uniform soup"] + 0.1


@pytest.mark.slow
def test_an_average_of_one_model_is_that_model_also_repaired(run):
    opened = open_runs((str(run),), None)
    data = {"test": splits(opened.data)["test"]}
    alone = connectivity.evaluate(opened.network, opened.params, data)["test"]
    calibration = jnp.asarray(opened.data.train.images[:100])
    for mix in (
        fusion_methods.mixtures(opened.network, opened.params, opened.state, calibration, "auto"),
        repairs.repaired(opened.module, opened.data.preprocess, opened.params, calibration, "auto"),
    ):
        found = mix(np.eye(3, dtype=np.float32), data)["test"]
        np.testing.assert_allclose(found.loss_sum, alone.loss_sum, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fuse", "name one or more run folders"),
        ("fuse gone", "gone is not a run folder"),
        ("fuse RUN --matching wieght", "did you mean 'weight'"),
        ("fuse RUN --ties kep", "did you mean 'keep'"),
        ("fuse RUN --placement vmpa", "did you mean 'vmap'"),
        ("fuse RUN --held-out-examples 0", "--held-out-examples must be at least 1"),
        ("fuse RUN --calibration-examples 0", "--calibration-examples must be at least 1"),
        ("fuse RUN --alphas 4", "odd number"),
        ("fuse RUN --models 0 3 -1", "--models: no model -1, 3: the numbers go from 0 to 2"),
        ("fuse RUN --models 1 1", "--models: 1 named twice"),
        ("fuse RUN gone away", "gone is not a run folder (it has no config.json); away is not"),
        ("fuse RUN RUN", "named more than once: RUN; its models would count twice"),
        ("fuse RUN --models 1", "1 model that did not diverge; two or more are needed"),
        ("fuse RUN --format hf --overwrite", "--format, --overwrite do nothing without --out"),
        ("fuse RUN --out=", "--out must not be empty"),
        ("fuse RUN --restarts 4", "--restarts: for matching, name a kind with --matching"),
        ("fuse RUN --matching weight --restarts 0", "--restarts must be at least 1"),
        ("fuse RUN --reset-ends", "--reset-ends: mlp 2x16 has no running statistics"),
        ("fuse RUN --weights 1 2 3", "--weights: for merging methods, name one or more with --method"),
        ("fuse RUN --method ties --weights 1 2", "--weights: 2 for 3 models; give one for each"),
        ("fuse RUN --method ties --weights 1 -2 3", "--weights must be at least 0 and finite, got -2"),
        ("fuse RUN --method ties --weights 0 0 0", "--weights: their sum must not be 0"),
        (
            "fuse RUN --method ties adamerging --weights 1 2 3",
            "--weights: adamerging learns its own coefficients and takes no weights",
        ),
    ],
)
def test_bad_options_are_answered_in_one_line(run, capsys, words, expected):
    assert main(words.replace("RUN", str(run)).split()) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert expected.replace("RUN", str(run)) in message and "Traceback" not in message


@pytest.mark.slow
def test_the_figure_is_drawn_from_the_file_alone(run, plain, tmp_path):
    png.draw(fuse_report.describe(read(run / "fuse.json")), tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (run / "fuse.png").read_bytes()
    titles = [figure.title for figure in fuse_report.describe(plain).figures]
    assert titles.pop(2) == "Accuracy against the number of models averaged"
    assert titles == [
        f"{title.format(name)}" for title in ("Test {} of each fusion", "{} along the path", "{} barrier of each pair")
        for name in (("accuracy", "loss") if "Test" in title else ("Accuracy", "Loss"))
    ]  # fmt: skip


@pytest.mark.slow
def test_a_figure_shows_every_member_and_hides_none(run, plain, tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    drawn = []
    monkeypatch.setattr(plt, "close", drawn.append)
    png.draw(fuse_report.describe(plain), tmp_path / "f.png")
    axis = drawn[0].axes[0]
    assert not axis.patches  # no bars: their length would say something only from 0 on
    (rings,) = [line for line in axis.lines if len(line.get_xdata()) == 3]
    (row,) = [r for r in plain["rows"] if r["fusion"] == "mean of members" and r["split"] == "test"]
    assert list(rings.get_xdata()) == list(row["member_accuracy"]) and not axis.texts
    assert [tick.get_text() for tick in axis.get_yticklabels()][1] == f"mean of members  {row['accuracy']:.4f}"


@pytest.fixture(scope="module")
def saved(run, plain, folder):
    """A folder with the fused models in both forms."""
    merging = ["--method", "regmean", "--method-options", "scale=0.9"]
    fuse(run, "--out", str(folder / "files"), "--format", "safetensors", *merging)
    return folder


@pytest.mark.slow
def test_fused_models_are_written_as_a_run_and_as_files(run, saved, capsys):
    opened = open_runs((str(run),), None)
    soup = uniform_soup(opened.params)
    again = open_runs((str(saved / "run"),), None)
    assert [model["fusion"] for model in again.models] == ["best", "uniform", "greedy"]
    for leaf, expected in zip(jax.tree.leaves(again.params), jax.tree.leaves(soup), strict=True):
        assert leaf[1].tobytes() == np.asarray(expected).tobytes()
    files = sorted((saved / "files").glob("*.safetensors"))
    assert [file.stem for file in files] == ["best", "greedy", "regmean", "uniform"]
    assert main(["import", *map(str, files), "--out", str(saved / "imported")]) == 0
    third = open_runs((str(saved / "imported"),), None)
    for leaf, other in zip(jax.tree.leaves(third.params), jax.tree.leaves(again.params), strict=True):
        assert leaf[3].tobytes() == other[1].tobytes() and leaf[0].tobytes() == other[0].tobytes()


@pytest.mark.slow
def test_a_merging_method_stands_beside_the_average(run, saved):
    result = read(run / "fuse.json")
    average, merge = result["merges"]["methods"]
    uniform = next(row for row in result["rows"] if (row["fusion"], row["split"]) == ("uniform soup", "test"))
    assert average["method"] == "average" and average["test"]["loss"] == pytest.approx(uniform["loss"], rel=1e-5)
    assert merge["dense_layers"] == ["Dense_0/kernel", "Dense_1/kernel", "Dense_2/kernel"]
    described = fuse_report.describe(result)
    table = described.tables[1]
    held = result["held_out"]["examples"]
    assert table.caption == f"Merging methods, options chosen on {held} training examples not seen in training"
    assert table.heads == ["method", "options", "held-out accuracy", "test accuracy", "ends' mean"]
    assert table.rows[1][:2] == ["regmean", "scale 0.9"] and table.rows[1][3] == f"{merge['test']['accuracy']:.4f}"
    assert "merging: 2 combinations of options scored on held-out examples, none on the test set" in described.remarks


@pytest.mark.slow
def test_fused_models_are_never_written_over_something(run, saved, capsys):
    assert main(["fuse", str(run), "--out", str(saved / "run")]) == 2
    assert "exists; name another folder, or add --overwrite" in capsys.readouterr().err
    assert main(["fuse", str(run), "--out", str(saved / "hf"), "--format", "hf"]) == 2
    assert "--format hf: " in capsys.readouterr().err and not (saved / "hf").exists()

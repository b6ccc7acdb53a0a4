"""`tna soup` as a user runs it: every fusion on every set, anchors, interruptions, less memory."""

import contextlib
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.tna_jax.programs.commands import GIVEN, SOUP, fails, read, same_arrays
from tests.tna_jax.programs.stops import After
from tna_jax.hf import loading
from tna_jax.io.runs import anchor_mask
from tna_jax.programs.cli.main import main
from tna_jax.programs.soup import run as soup
from tna_jax.programs.training import ensembles


@pytest.fixture(scope="module", autouse=True)
def optax_arithmetic():
    """Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
def test_a_soup_reports_every_fusion_on_every_set_by_ratio(souped):
    result = read(souped / "soup.json")
    splits = {"test", "noise 5", "blur 5", "contrast 5", "shifted"}
    found = {(row["ratio"], row["fusion"], row["split"]) for row in result["rows"]}
    assert found == {(r, f, s) for r in (0.0, 0.5) for f in soup.soup_report.FUSIONS for s in splits}
    assert result["stands_on"]["data"] == "digits:0-4"
    for ratio in (0.0, 0.5):
        rows = [row for row in result["rows"] if (row["ratio"], row["fusion"]) == (ratio, "uniform soup")]
        shifted = [row["accuracy"] for row in rows if row["split"] not in ("test", "shifted")]
        (mean,) = (row["accuracy"] for row in rows if row["split"] == "shifted")
        assert mean == pytest.approx(np.mean(shifted))
    assert all(group["score"] >= group["trail"][0]["own"] for group in result["greedy"])
    assert (souped / "soup.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_anchors_keep_their_bits_in_every_model_and_in_the_soups(souped, home):
    assert [group["anchors_moved"] for group in read(souped / "soup.json")["greedy"]] == [0, 0]
    plain, anchored = (loading.load(souped / f"soup-ratio-{ratio}").params["body"] for ratio in ("0", "0.5"))
    begun = loading.load(home / "vit" / "model").params["body"]
    shares = []
    for tree in (plain, anchored):
        equal = [
            np.asarray(a).view(np.uint32) == np.asarray(b).view(np.uint32)
            for a, b in zip(*map(jax.tree.leaves, (tree, begun)), strict=True)
        ]
        shares.append(np.concatenate([one.ravel() for one in equal]).mean())
    assert shares[1] == pytest.approx(0.5, abs=0.06)
    assert shares[0] < 0.1  # the control: without anchors nearly everything has moved


@pytest.mark.slow
def test_an_interrupted_soup_goes_on_to_the_same_numbers(souped, home, tmp_path, monkeypatch):
    words = ["soup", "--checkpoint", str(home / "vit" / "model"), *SOUP, "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(0)))
        assert main(words) == 130
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert read(tmp_path / "run" / "soup.json")["rows"] == read(souped / "soup.json")["rows"]
    assert same_arrays(tmp_path / "run" / "soup-ratio-0.5", souped / "soup-ratio-0.5")


@pytest.mark.slow
def test_a_soup_does_not_go_on_from_another_checkpoint(home, vit, tmp_path, monkeypatch, capsys):
    checkpoint = Path(shutil.copytree(vit / "model", tmp_path / "model"))
    weights, run = checkpoint / "model.safetensors", str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(0)))
        assert main(["soup", "--checkpoint", str(checkpoint), *SOUP, "--out", run]) == 130
    held, begun = {path: path.read_bytes() for path in Path(run).glob("*.json*")}, weights.read_bytes()
    weights.write_bytes(begun[:-1] + bytes([begun[-1] ^ 1]))
    assert f"not the files any more that {run} was started from: {weights} has changed" in fails(capsys, "resume", run)
    assert held == {path: path.read_bytes() for path in Path(run).glob("*.json*")}
    weights.write_bytes(begun)
    assert main(["resume", run]) == 0


@pytest.mark.slow
def test_given_models_are_averaged_without_training(souped, home, tmp_path, capsys):
    folders = [str(souped / "soup-ratio-0"), str(souped / "soup-ratio-0.5")]
    out = tmp_path / "given"
    assert main(["soup", "--models", *folders, *GIVEN, "--seed", "5", "--out", str(out)]) == 0
    assert (out / "soup" / "model.safetensors").is_file() and read(out / "soup.json")["greedy"][0]["seed"] == 5
    given, trained = read(out / "soup.json"), read(souped / "soup.json")
    members = next(row for row in given["rows"] if row["fusion"] == "mean of members" and row["split"] == "test")
    greedy = {
        row["ratio"]: row["accuracy"]
        for row in trained["rows"]
        if (row["fusion"], row["split"]) == ("greedy soup", "test")
    }
    assert members["member_accuracy"] == pytest.approx([greedy[0.0], greedy[0.5]])
    assert "has 5 classes, the data 10" in fails(
        capsys, "soup", "--models", folders[0], str(home / "vit" / "model"), *GIVEN
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "near"), [(["--remat", "--accumulate", "5"], 1e-3), (["--precision", "bf16", "--remat"], 0.05)]
)
def test_options_for_less_memory_make_nearly_the_same_soup(souped, home, tmp_path, options, near):
    """The same steps up to rounding, which training lets grow; parameters and anchors are float32 in any case."""
    words = ["soup", "--checkpoint", str(home / "vit" / "model"), *SOUP, *options, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    rows, expected = (read(folder / "soup.json")["rows"] for folder in (tmp_path / "run", souped))
    for row, other in zip(rows, expected, strict=True):
        if row["fusion"] == "mean of members":  # what is chosen may tip over
            assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.02 if near < 0.01 else 0.1), row
    assert [group["anchors_moved"] for group in read(tmp_path / "run" / "soup.json")["greedy"]] == [0, 0]
    leaves = [jax.tree.leaves(loading.load(folder / "soup-ratio-0.5").params) for folder in (tmp_path / "run", souped)]
    assert {leaf.dtype for leaf in leaves[0]} == {np.dtype(np.float32)}
    apart = [float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True)]
    assert 0 < max(apart) < near


@pytest.mark.slow
def test_a_text_task_makes_soups_too(home, bert, tmp_path):
    words = [
        "--dataset",
        "mr",
        "--recipes",
        "2",
        "--ratios",
        "0.3",
        "--held-out-examples",
        "12",
        "--epochs",
        "1",
        "--length",
        "12",
    ]
    out = tmp_path / "text"
    assert (
        main(
            [
                "soup",
                "--checkpoint",
                str(home / "bert" / "model"),
                *words,
                "--data-dir",
                str(home / "data"),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    result = read(out / "soup.json")
    assert {row["split"] for row in result["rows"]} == {"test"} and result["greedy"][0]["anchors_moved"] == 0
    assert (out / "soup-ratio-0.3" / "tokenizer.json").is_file()


@pytest.mark.slow
def test_a_folder_of_images_makes_a_soup(vit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        (tmp_path / "pets" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 8), 6 * i).save(tmp_path / "pets" / "ab"[i % 2] / f"{i}.png")
    words = ["--dataset", "pets", "--image-size", "8", "--recipes", "2", "--ratios", "0", "--held-out-examples", "8", "--epochs", "1",
             "--batch-size", "8", "--corruptions", "noise"]  # fmt: skip
    assert main(["soup", "--checkpoint", str(vit / "model"), *words, "--out", "run"]) == 0
    config = read(tmp_path / "run" / "config.json")
    assert config["dataset"] == str(tmp_path / "pets") and len(config["data_fingerprint"]) == 64
    assert main(["resume", "run"]) == 0


@pytest.mark.slow
def test_a_checkpoint_takes_images_of_another_size_and_keeps_what_is_frozen(vit, tmp_path):
    checkpoint = vit / "model"
    words = ["--dataset", "digits", "--image-size", "16", "--freeze", "patches|layer_", "--recipes", "2", "--ratios", "0.5", "--epochs", "1",
             "--train-examples", "40", "--held-out-examples", "20", "--test-examples", "20", "--batch-size", "20", "--corruptions", "noise"]  # fmt: skip
    assert main(["soup", "--checkpoint", str(checkpoint), *words, "--out", str(tmp_path / "run")]) == 0
    begun, soup = (loading.load(folder) for folder in (checkpoint, tmp_path / "run" / "soup-ratio-0.5"))
    assert soup.module.image_size in (16, (16, 16)) and soup.params["body"]["positions"].shape[1] == 1 + 16
    for name in ("patches", "layer_0"):
        for leaf, before in zip(*(jax.tree.leaves(one.params["body"][name]) for one in (soup, begun)), strict=True):
            assert (np.asarray(leaf).view(np.uint32) == np.asarray(before).view(np.uint32)).all()
    result = read(tmp_path / "run" / "soup.json")
    assert result["greedy"][0]["anchors_moved"] == 0
    assert result["frozen"]["freeze"] == result["config"]["freeze"] == "patches|layer_"
    assert not anchor_mask(tmp_path / "run")["body"]["layer_0"]["query"]["kernel"].any()  # as the run records it
    mask = anchor_mask(tmp_path / "run")["body"]["positions"]
    assert mask.any() and not mask.all()

"""`tna pretrain` as a user runs it: results, interruptions; refusals of it, `tna soup` and `tna cold`."""

import contextlib

import jax
import pytest

from tests.tna_jax.programs.commands import BERT, COLD, SOUP, VIT, fails, read, same_arrays
from tests.tna_jax.programs.stops import After
from tna_jax.hf import loading
from tna_jax.programs.cli.main import main
from tna_jax.programs.training import ensembles


@pytest.fixture(scope="module", autouse=True)
def optax_arithmetic():
    """Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_pretraining_writes_a_folder_that_says_what_it_stands_on(kind, request):
    run = request.getfixturevalue(kind)
    result, about = read(run / "pretrain.json"), read(run / "model" / "pretraining.json")
    assert "2 epochs, tna pretrain" in about["in_words"] and about["parameters"] == result["parameters"]
    assert (run / "model" / {"vit": "preprocessor_config.json", "bert": "tokenizer.json"}[kind]).is_file()
    assert len(result["epochs"]) == 2 and result["epochs"][1]["loss"] < result["epochs"][0]["loss"]
    assert result["provenance"]["peak_bytes"] > result["provenance"]["predicted_bytes_per_model"]["kept"] > 0
    assert (run / "pretrain.png").read_bytes()[:4] == b"\x89PNG"
    if kind == "vit":
        assert result["test"]["accuracy"] > 0.3  # chance: 0.2
    else:
        assert loading.load(run / "model").module.head == "masked_lm"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_an_interrupted_pretraining_goes_on_to_the_same_model(home, tmp_path, monkeypatch, kind, request):
    words = [*VIT] if kind == "vit" else [*BERT, "--data-dir", str(home / "data")]
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(0)))
        assert main(["pretrain", *words, "--out", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run" / "model").exists()
    assert main(["resume", str(tmp_path / "run")]) == 0
    whole = request.getfixturevalue(kind)
    assert same_arrays(tmp_path / "run" / "model", whole / "model")


def test_what_cannot_be_is_refused_before_anything_is_done(home, tmp_path, capsys):
    model, data = str(home / "drawn"), ["--data-dir", str(home / "data")]
    for words, part in [
        (["soup", "--dataset", "digits"], "--checkpoint FOLDER"),
        (["soup", "--checkpoint", "nowhere", *SOUP], "there is no model folder nowhere"),
        (["soup", "--checkpoint", model, *SOUP], "holds a bert, expected vit"),
        (["soup", "--checkpoint", model, "--ratios", "1.2"], "--ratios"),
        (["soup", "--checkpoint", str(home / "drawn_vit"), *SOUP, "--train-examples", "9999"], "are more than the 1437 there are"),
        (["soup", "--checkpoint", model, "--learning-rates", "0"], "--learning-rates must be above 0"),
        (["soup", "--checkpoint", model, "--corruptions", "fog"], "noise, blur, contrast"),
        (["cold", *COLD], "--checkpoint FOLDER"),
        (["cold", "--checkpoint", model, "--tasks", "mr", "movies"], "unknown --tasks 'movies'"),
        (["cold", "--checkpoint", model, "--tasks", "mr", "trec", "--unseen", "mr"], "named twice: mr"),
        (["cold", "--checkpoint", str(home / "drawn_vit"), *COLD, *data], "holds a vit, expected bert"),
        (["cold", "--checkpoint", model, *COLD, *data, "--length", "40"], "takes at most 12 tokens"),
        (["cold", "--checkpoint", model, *COLD, *data, "--batch-size", "61"], "larger than the 60 training examples"),
        (["pretrain", "--model", "gpt"], "known: vit, bert"),
        (["pretrain", *VIT, "--patch", "3"], "patches of 3x3"),
        (["pretrain", *VIT, "--accumulate", "7"], "does not divide"),
        (["pretrain", *VIT, "--augmentation", "2"], "--augmentation must lie in [0, 1]"),
    ]:  # fmt: skip
        assert part in fails(capsys, *words, "--out", str(tmp_path / "no")), words
        assert not (tmp_path / "no").exists(), words

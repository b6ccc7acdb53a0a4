"""`tna pretrain`, `tna soup`, `tna cold` as a user runs them: results, anchors, interruptions, refusals."""

import contextlib
import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.stops import After
from tna_jax import models
from tna_jax.hf import loading, tokenizer
from tna_jax.hf.config import shapes_of
from tna_jax.io import safetensors
from tna_jax.programs.cli.main import main
from tna_jax.programs.cold import run as cold
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.soup import run as soup
from tna_jax.programs.training import ensembles

SMALL_VIT = ["--width", "16", "--depth", "1", "--patch", "4", "--dataset", "digits:0-4", "--train-examples", "200",
             "--epochs", "2", "--batch-size", "8", "--learning-rate", "1e-2", "--augmentation", "0"]  # fmt: skip
SOUP = ["--dataset", "digits", "--recipes", "3", "--ratios", "0", "0.5", "--train-examples", "150", "--held-out-examples", "100",
        "--test-examples", "100", "--epochs", "2", "--batch-size", "50", "--severities", "5"]  # fmt: skip
SMALL_BERT = ["--model", "bert", "--width", "16", "--depth", "1", "--vocab", "256", "--length", "12", "--tasks", "mr", "trec",
              "--epochs", "2", "--batch-size", "40"]  # fmt: skip
COLD = ["--tasks", "mr", "trec", "--unseen", "subj", "--iterations", "2", "--examples", "60", "--score-examples", "40",
        "--score-epochs", "1", "--probe-examples", "60", "--batch-size", "20", "--length", "12", "--ratios", "0", "0.5"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def optax_arithmetic():
    """Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with text tasks and a pretrained ViT."""
    home = tmp_path_factory.mktemp("programs")
    (home / "data" / "text").mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = np.array(["good", "bad", "fine", "poor", "who", "where", "film", "plot", "city", "man", "great", "awful"])
    for name, classes in (("mr.all", 2), ("subj.all", 2), ("trec.train", 6), ("trec.test", 6)):
        rows = []
        for i in range(120):
            label = int(rng.integers(classes))
            rows.append(f"{label}\t{words[label]} {' '.join(rng.choice(words, 4))} {i}")
        with gzip.open(home / "data" / "text" / f"{name}.tsv.gz", "wt") as file:
            file.write("".join(f"{row}\n" for row in rows))
    with contextlib.chdir(home):
        assert main(["pretrain", *SMALL_VIT, "--out", "vit"]) == 0
    return home


@pytest.fixture(scope="module")
def bert(home):
    """A run of `tna pretrain` in that folder."""
    with contextlib.chdir(home):
        assert main(["pretrain", *SMALL_BERT, "--data-dir", "data", "--out", "bert"]) == 0
    return home / "bert"


@pytest.fixture(scope="module")
def drawn(home):
    """The folder of such a BERT that was not trained."""
    module = models.create("bert", vocab=40, positions=12, width=16, depth=1, heads=2, mlp=64, head="masked_lm")
    draws, folder = np.random.default_rng(0), home / "drawn"
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 2).items()}
    loading.save(folder, module, loading.tree(leaves))
    tokenizer.train(["good bad film plot"], 40).save(folder)
    return folder


def read(file: Path):
    return json.loads(file.read_text())


def fails(capsys, *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def same_arrays(one: Path, other: Path) -> bool:
    a, b = (safetensors.read(folder / "model.safetensors")[0] for folder in (one, other))
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


KINDS = ["vit", pytest.param("bert", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", KINDS)
def test_pretraining_writes_a_folder_that_says_what_it_stands_on(home, kind, request):
    run = home / "vit" if kind == "vit" else request.getfixturevalue("bert")
    result, about = read(run / "pretrain.json"), read(run / "model" / "pretraining.json")
    assert "2 epochs, tna pretrain" in about["in_words"] and about["parameters"] == result["parameters"]
    assert (run / "model" / {"vit": "preprocessor_config.json", "bert": "tokenizer.json"}[kind]).is_file()
    assert len(result["epochs"]) == 2 and result["epochs"][1]["loss"] < result["epochs"][0]["loss"]
    assert result["provenance"]["peak_bytes"] > result["provenance"]["predicted_bytes_per_model"]["kept"] > 0
    assert (run / "pretrain.png").stat().st_size > 5000
    if kind == "vit":
        assert result["test"]["accuracy"] > 0.3  # chance: 0.2
    else:
        assert loading.load(run / "model").module.head == "masked_lm"


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_pretraining_goes_on_to_the_same_model(home, tmp_path, monkeypatch, kind, request):
    words = [*SMALL_VIT] if kind == "vit" else [*SMALL_BERT, "--data-dir", str(home / "data")]
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(0)))
        assert main(["pretrain", *words, "--out", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run" / "model").exists()
    assert main(["resume", str(tmp_path / "run")]) == 0
    whole = home / "vit" if kind == "vit" else request.getfixturevalue("bert")
    assert same_arrays(tmp_path / "run" / "model", whole / "model")


@pytest.fixture(scope="module")
def souped(home):
    with contextlib.chdir(home):
        assert main(["soup", "--checkpoint", "vit/model", *SOUP, "--out", "soup"]) == 0
    return home / "soup"


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
    assert (souped / "soup.png").stat().st_size > 10_000


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
def test_given_models_are_averaged_without_training(souped, home, tmp_path, capsys):
    folders = [str(souped / "soup-ratio-0"), str(souped / "soup-ratio-0.5")]
    out = tmp_path / "given"
    assert main(["soup", "--models", *folders, *SOUP, "--out", str(out)]) == 0
    given, trained = read(out / "soup.json"), read(souped / "soup.json")
    members = next(row for row in given["rows"] if row["fusion"] == "mean of members" and row["split"] == "test")
    greedy = {
        row["ratio"]: row["accuracy"]
        for row in trained["rows"]
        if (row["fusion"], row["split"]) == ("greedy soup", "test")
    }
    assert members["member_accuracy"] == pytest.approx([greedy[0.0], greedy[0.5]])
    assert "is another network" in fails(capsys, "soup", "--models", folders[0], str(home / "vit" / "model"), *SOUP)


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


@pytest.fixture(scope="module")
def fused(home, bert):
    with contextlib.chdir(home):
        assert main(["cold", "--checkpoint", "bert/model", *COLD, "--data-dir", "data", "--out", "cold"]) == 0
    return home / "cold"


@pytest.mark.slow
def test_cold_fusion_scores_every_task_in_every_iteration(fused):
    result = read(fused / "cold.json")
    found = {(row["ratio"], row["iteration"], row["kind"], row["task"], row["seen"]) for row in result["rows"]}
    tasks = (("mr", True), ("trec", True), ("subj", False))
    assert found == {
        (r, i, k, *t) for r in (0.0, 0.5) for i in range(3) for k in ("probe", "fine-tuning") for t in tasks
    }
    assert result["anchors_moved"] == 0
    starts = [
        [row["accuracy"] for row in result["rows"] if (row["ratio"], row["iteration"]) == (ratio, 0)]
        for ratio in (0.0, 0.5)
    ]
    assert starts[0] == starts[1]  # one body before the first iteration
    assert all(line["gain"][0] == 0 for line in result["summary"] if line["iteration"] == 0)
    assert (fused / "cold.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_fused_body_moved_where_it_was_not_anchored(fused, home):
    begun = loading.load(home / "bert" / "model").params["body"]
    shares = []
    for ratio in ("0", "0.5"):
        body = loading.load(fused / f"body-ratio-{ratio}").params["body"]
        assert (fused / f"body-ratio-{ratio}" / "tokenizer.json").is_file()
        kernel, before = (np.asarray(tree["layer_0"]["query"]["kernel"]) for tree in (body, begun))
        shares.append((kernel.view(np.uint32) == before.view(np.uint32)).mean())
    assert shares[0] < 0.05
    assert shares[1] == pytest.approx(0.5**2, abs=0.1)  # anchored in both iterations: the masks are fresh


@pytest.mark.slow
@pytest.mark.parametrize("looks", [0, 4])  # while the start is scored, in an iteration
def test_an_interrupted_fusion_goes_on_to_the_same_numbers(fused, home, tmp_path, monkeypatch, looks):
    words = ["cold", "--checkpoint", str(home / "bert" / "model"), *COLD, "--data-dir", str(home / "data")]
    with monkeypatch.context() as patch:
        patch.setattr(cold, "stoppable", lambda: contextlib.nullcontext(After(looks)))
        assert main([*words, "--out", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run" / "cold.json").exists()
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert read(tmp_path / "run" / "cold.json")["rows"] == read(fused / "cold.json")["rows"]
    assert same_arrays(tmp_path / "run" / "body-ratio-0.5", fused / "body-ratio-0.5")


@pytest.mark.slow
def test_models_that_do_not_fit_at_once_train_in_waves_to_the_same_numbers(fused, home, tmp_path):
    words = ["cold", "--checkpoint", str(home / "bert" / "model"), *COLD, "--data-dir", str(home / "data")]
    wave = cold.memory.at_once
    words += ["--tune-every", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold.memory, "at_once", lambda *arguments: min(3, wave(*arguments)))
        assert main([*words, "--iterations", "1", "--out", str(tmp_path / "run")]) == 0
    found, whole = read(tmp_path / "run" / "cold.json"), read(fused / "cold.json")
    assert found["rows"] == [row for row in whole["rows"] if row["iteration"] <= 1]
    assert {row["iteration"] for row in found["rows"] if row["kind"] == "fine-tuning"} == {
        0,
        1,
    }  # the last one is always scored


def test_classes_that_a_task_lacks_are_shut(drawn):
    loaded = loading.load(drawn, head="new", num_classes=6, key=jax.random.key(0))
    params = cold_tasks.shut(loaded.params, 2)
    logits = np.asarray(loaded.module.apply({"params": params}, np.ones((3, 5), np.int32)))
    free = np.asarray(loaded.module.apply({"params": loaded.params}, np.ones((3, 5), np.int32)))
    assert (np.asarray(jax.nn.softmax(logits))[:, 2:] == 0).all()
    assert np.array_equal(logits[:, :2], free[:, :2])
    mask = cold_tasks.shut_mask(jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params), 2)
    assert np.asarray(mask["head"]["kernel"]).sum() == 2 * 16 and np.asarray(mask["body"]["words"]["embedding"]).all()


def test_what_cannot_be_is_refused_before_anything_is_done(home, drawn, tmp_path, capsys):
    model, data = str(drawn), ["--data-dir", str(home / "data")]
    for words, part in [
        (["soup", "--dataset", "digits"], "--checkpoint FOLDER"),
        (["soup", "--checkpoint", "nowhere", *SOUP], "there is no model folder nowhere"),
        (["soup", "--checkpoint", model, *SOUP], "holds a bert, expected vit"),
        (["soup", "--checkpoint", model, "--ratios", "1.2"], "--ratios"),
        (["soup", "--checkpoint", str(home / "vit" / "model"), *SOUP, "--train-examples", "9999"], "are more than the 1437 there are"),
        (["soup", "--checkpoint", model, "--learning-rates", "0"], "learning_rate 0"),
        (["soup", "--checkpoint", model, "--corruptions", "fog"], "noise, blur, contrast"),
        (["cold", *COLD], "--checkpoint FOLDER"),
        (["cold", "--checkpoint", model, "--tasks", "mr", "movies"], "unknown text task 'movies'"),
        (["cold", "--checkpoint", model, "--tasks", "mr", "trec", "--unseen", "mr"], "named twice: mr"),
        (["cold", "--checkpoint", str(home / "vit" / "model"), *COLD, *data], "vocab.txt"),
        (["cold", "--checkpoint", model, *COLD, *data, "--length", "40"], "takes at most 12 tokens"),
        (["cold", "--checkpoint", model, *COLD, *data, "--batch-size", "61"], "larger than the 60 training examples"),
        (["pretrain", "--model", "gpt"], "known: vit, bert"),
        (["pretrain", *SMALL_VIT, "--patch", "3"], "patches of 3x3"),
        (["pretrain", *SMALL_VIT, "--accumulate", "7"], "does not divide"),
        (["pretrain", *SMALL_VIT, "--augmentation", "2"], "augmentation 2"),
    ]:  # fmt: skip
        assert part in fails(capsys, *words, "--out", str(tmp_path / "no")), words
        assert not (tmp_path / "no").exists(), words


@pytest.mark.slow
def test_the_runs_are_listed_with_what_came_out(souped, fused, home, capsys):
    assert main(["runs", str(home)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("finished") == 4
    assert "uniform soup" in printed and "iteration 2 less" in printed

"""`tna cold` as a user runs it: scores of every task, anchors, interruptions, waves."""

import contextlib

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.commands import COLD, read, same_arrays
from tests.tna_jax.programs.conftest import write_bert
from tests.tna_jax.programs.stops import After
from tna_jax.hf import loading
from tna_jax.programs.cli.main import main
from tna_jax.programs.cold import run as cold
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.training import model_files


@pytest.fixture(scope="module", autouse=True)
def optax_arithmetic():
    """Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.slow
def test_cold_fusion_scores_every_task_in_every_iteration(cold_fused):
    result = read(cold_fused / "cold.json")
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
    assert (cold_fused / "cold.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_fused_body_moved_where_it_was_not_anchored(cold_fused, home):
    begun = loading.load(home / "bert" / "model").params["body"]
    shares = []
    for ratio in ("0", "0.5"):
        body = loading.load(cold_fused / f"body-ratio-{ratio}").params["body"]
        assert (cold_fused / f"body-ratio-{ratio}" / "tokenizer.json").is_file()
        kernel, before = (np.asarray(tree["layer_0"]["query"]["kernel"]) for tree in (body, begun))
        shares.append((kernel.view(np.uint32) == before.view(np.uint32)).mean())
    assert shares[0] < 0.05
    assert shares[1] == pytest.approx(0.5**2, abs=0.1)  # anchored in both iterations: the masks are fresh


@pytest.mark.slow
@pytest.mark.parametrize("looks", [0, 4])  # while the start is scored, in an iteration
def test_an_interrupted_fusion_goes_on_to_the_same_numbers(cold_fused, home, tmp_path, monkeypatch, looks):
    words = ["cold", "--checkpoint", str(home / "bert" / "model"), *COLD, "--data-dir", str(home / "data")]
    with monkeypatch.context() as patch:
        patch.setattr(cold, "stoppable", lambda: contextlib.nullcontext(After(looks)))
        assert main([*words, "--out", str(tmp_path / "run")]) == 130
    assert not (tmp_path / "run" / "cold.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(model_files, "_sha256", lambda file: "of another file")
        assert main(["resume", str(tmp_path / "run")]) == 2
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert read(tmp_path / "run" / "cold.json")["rows"] == read(cold_fused / "cold.json")["rows"]
    assert same_arrays(tmp_path / "run" / "body-ratio-0.5", cold_fused / "body-ratio-0.5")


@pytest.mark.slow
def test_models_that_do_not_fit_at_once_train_in_waves_to_the_same_numbers(cold_fused, home, tmp_path):
    """Losses of probes to a few roundings: this process compiles other programs than that of a user, who had all models at once."""
    words = ["cold", "--checkpoint", str(home / "bert" / "model"), *COLD, "--data-dir", str(home / "data")]
    wave = cold.memory.at_once
    words += ["--tune-every", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cold.memory, "at_once", lambda *arguments: min(3, wave(*arguments)))
        assert main([*words, "--iterations", "1", "--out", str(tmp_path / "run")]) == 0
    found, whole = read(tmp_path / "run" / "cold.json"), read(cold_fused / "cold.json")
    expected = [row for row in whole["rows"] if row["iteration"] <= 1]
    assert [{**row, "loss": None} for row in found["rows"]] == [{**row, "loss": None} for row in expected]
    rounding = 8 * np.finfo(np.float32).eps
    assert [row["loss"] for row in found["rows"]] == pytest.approx([row["loss"] for row in expected], rel=rounding)
    assert {row["iteration"] for row in found["rows"] if row["kind"] == "fine-tuning"} == {
        0,
        1,
    }  # the last one is always scored


def test_classes_that_a_task_lacks_are_shut(tmp_path):
    write_bert(tmp_path / "drawn")
    loaded = loading.load(tmp_path / "drawn", head="new", num_classes=6, key=jax.random.key(0))
    params = cold_tasks.shut(loaded.params, 2)
    apply = jax.jit(lambda params: loaded.module.apply({"params": params}, np.ones((3, 5), np.int32)))
    logits, free = np.asarray(apply(params)), np.asarray(apply(loaded.params))
    assert (np.asarray(jax.nn.softmax(logits))[:, 2:] == 0).all()
    assert np.array_equal(logits[:, :2], free[:, :2])
    mask = cold_tasks.shut_mask(jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params), 2)
    assert np.asarray(mask["head"]["kernel"]).sum() == 2 * 16 and np.asarray(mask["body"]["words"]["embedding"]).all()


@pytest.mark.slow
def test_the_runs_are_listed_with_what_came_out(souped, cold_fused, home, capsys):
    assert main(["runs", str(home)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("finished") == 4
    assert "uniform soup" in printed and "iteration 2 less" in printed


@pytest.mark.slow
def test_texts_of_the_users_own_contribute_and_are_found_again(bert, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_text(
            "text\tlabel\n" + "".join(f"{name} number {i}\t{'yes' if i % 3 else 'no'}\n" for i in range(80))
        )
    words = ["--tasks", "a.tsv", "b.tsv", "--iterations", "1", "--examples", "20", "--score-examples", "20", "--score-epochs", "1",
             "--probe-examples", "20", "--batch-size", "20", "--length", "8", "--ratios", "0"]  # fmt: skip
    assert (
        main(
            [
                "cold",
                "--checkpoint",
                str(bert / "model"),
                *words,
                "--unseen",
                "mr",
                "--data-dir",
                str(bert.parent / "data"),
                "--out",
                "run",
            ]
        )
        == 0
    )
    config = read(tmp_path / "run" / "config.json")
    assert (
        config["tasks"] == [str(tmp_path / "a.tsv"), str(tmp_path / "b.tsv")] and len(config["task_fingerprints"]) == 2
    )
    assert [task["name"] for task in read(tmp_path / "run" / "cold.json")["tasks"]] == ["a.tsv", "b.tsv", "mr"]
    assert main(["resume", "run"]) == 0
    (tmp_path / "b.tsv").write_text((tmp_path / "a.tsv").read_text())
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    assert "b.tsv is not the data of the run any more" in capsys.readouterr().err.replace("\n", " ")

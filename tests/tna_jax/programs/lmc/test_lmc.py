"""The main job as a user runs it: numbers, files, bad input in one line, interruption and resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tna_jax.programs.cli.main import main
from tna_jax.programs.lmc import plan as lmc_plan
from tna_jax.programs.lmc import report as lmc_report
from tna_jax.programs.reports import png
from tna_jax.programs.training import ensembles

ROOT = Path(__file__).resolve().parents[4]
SMALL = ["--width", "16", "--depth", "2", "--seeds", "2", "--ratios", "0", ".5", "--epochs", "2", "--alphas", "3"]


def fails(capsys, *words: str) -> str:
    """Runs `tna lmc` with wrong options and returns the one line it prints."""
    assert main(["lmc", *words]) == 2
    printed = capsys.readouterr().err.strip()
    assert len(printed.splitlines()) == 1, printed
    assert "Traceback" not in printed
    return printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--dataset digit", "did you mean 'digits'"),
        ("--dataset cifar100 --data-dir nowhere", "nowhere"),
        ("--model mpl", "did you mean 'mlp'"),
        ("--optimizer adm", "'adam'"),
        ("--placement vmpa", "did you mean 'vmap'"),
        ("--init sme", "did you mean 'same'"),
        ("--methods tna prnue", "did you mean 'prune'"),
        ("--anchors neuron", "did you mean 'neurons'"),
        ("--schedule cosin", "did you mean 'cosine'"),
        ("--epoch 3", "did you mean --epochs"),
        ("--epochs three", "--epochs"),
        ("--epochs 0", "--epochs must be at least 1"),
        ("--ratios 0 1.0", "must lie in [0, 1), got 1.0"),
        ("--ratios -0.1", "must lie in [0, 1), got -0.1"),
        ("--alphas 0 0.5", "missing: 1"),
        ("--alphas 0.1 0.5 1", "missing: 0"),
        ("--alphas 4", "odd number"),
        ("--batch-size 5000", "--batch-size 5000 is larger than the 1437 training examples"),
        ("--train-examples 9999", "1437"),
        ("--where Dnse", "selects no leaf; the paths are: Dense_0/bias"),
        ("--optimizer adam --momentum 0.9", "--momentum: adam has none"),
        ("--resume", "--resume needs the --out"),
        ("--out gone --resume", "gone is not a run folder"),
        ("--config gone.json", "gone.json"),
        ("--seeds 0", "--seeds must be at least 1"),
    ],
)
def test_bad_options_are_answered_in_one_line(capsys, words, expected):
    started = time.monotonic()
    assert expected in fails(capsys, *words.split())
    assert time.monotonic() - started < 40
    assert not [path for path in Path(".").rglob("*") if path.name == "lmc.json"]


def test_unknown_programs_help_and_version(capsys):
    assert main(["lcm"]) == 2
    assert "did you mean 'lmc'" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "tna lmc" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tna_jax ")
    assert main(["lmc", "--help"]) == 0
    assert "Passes over the training data. (default: 50)" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run of everything."""
    out = tmp_path_factory.mktemp("lmc") / "run"
    before = Path.cwd()
    os.chdir(out.parent)
    try:
        assert main(["lmc", *SMALL, "--out", str(out)]) == 0
    finally:
        os.chdir(before)
    return out


def test_the_run_folder_and_the_json(finished):
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "provenance.json", "metrics.jsonl", "plan.json", "checkpoints", "lmc.json", "lmc.png", ".lock",
    }  # fmt: skip
    result = json.loads((finished / "lmc.json").read_text())
    assert {"provenance", "config", "alphas", "rows"} <= set(result)
    assert result["alphas"] == [0, 0.5, 1]
    assert len(result["rows"]) == 2 * 2 * 2 * 2 * 2  # methods, initialisations, ratios, seeds, splits
    for row in result["rows"]:
        assert {
            "method", "init", "ratio", "seed", "split", "accuracy_ends", "accuracy_path", "loss_path", "accuracy_midpoint",
            "accuracy_barrier", "accuracy_barrier_relative", "loss_barrier",
        } <= set(row)  # fmt: skip
        assert row["accuracy_ends"] == [row["accuracy_path"][0], row["accuracy_path"][2]]
        assert row["accuracy_midpoint"] == row["accuracy_path"][1]
        gap = np.mean(row["accuracy_ends"]) - row["accuracy_midpoint"]
        assert row["accuracy_barrier"] == pytest.approx(max(gap, 0), abs=1e-12)
        assert row["examples"] == {"train": 1437, "test": 360}[row["split"]]
    assert {"commit", "versions", "device", "seeds", "placement"} <= set(result["provenance"])
    assert (finished / "lmc.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 2


def test_at_ratio_0_both_methods_are_plain_training(finished):
    rows = json.loads((finished / "lmc.json").read_text())["rows"]
    plain = {
        method: [{**r, "method": 0} for r in rows if r["method"] == method and r["ratio"] == 0]
        for method in ("tna", "prune")
    }
    assert plain["tna"] == plain["prune"]
    other = {
        method: [{**r, "method": 0} for r in rows if r["method"] == method and r["ratio"] > 0]
        for method in ("tna", "prune")
    }
    assert other["tna"] != other["prune"]


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_also_from_its_config_file(finished, tmp_path):
    assert main(["lmc", "--config", str(finished / "config.json"), "--out", str(tmp_path / "again")]) == 0
    first, again = (json.loads((run / "lmc.json").read_text())["rows"] for run in (finished, tmp_path / "again"))
    assert first == again
    assert main(["lmc", *SMALL, "--first-seed", "7", "--out", str(tmp_path / "other")]) == 0
    assert json.loads((tmp_path / "other" / "lmc.json").read_text())["rows"] != first


def test_a_run_is_not_written_over_unless_asked(finished, capsys, tmp_path):
    assert "add --overwrite or --resume" in fails(capsys, *SMALL, "--out", str(finished))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    assert "is not a run folder" in fails(capsys, *SMALL, "--out", str(mine), "--overwrite")
    assert (mine / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    assert "is a file" in fails(capsys, *SMALL, "--out", str(tmp_path / "file"))
    assert "cannot write to --out" in fails(capsys, *SMALL, "--out", str(tmp_path / "file" / "below"))


@pytest.mark.slow
def test_overwriting_keeps_what_is_not_the_runs_own(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    (out / "notes.txt").write_text("mine")
    assert main(["lmc", *SMALL, "--epochs", "1", "--out", str(out), "--overwrite"]) == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "config.json").read_text())["epochs"] == 1


def in_a_process(out: Path, *words: str, devices: int = 2) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tna_jax", "lmc", "--out", str(out), "--cpu-devices", str(devices), *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_was_finished_and_goes_on_to_the_same_numbers(tmp_path):
    long = [*SMALL, "--epochs", "40"]
    process = in_a_process(tmp_path / "cut", *long)
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "to resume" in text and "Traceback" not in text, text
    assert not (tmp_path / "cut" / "lmc.json").exists()
    done = len(metrics.read_text().splitlines())
    assert done < 40
    for out, words in ((tmp_path / "cut", ["--resume"]), (tmp_path / "whole", [])):
        process = in_a_process(out, *long, *words)
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text
    cut, whole = (json.loads((tmp_path / name / "lmc.json").read_text())["rows"] for name in ("cut", "whole"))
    assert cut == whole
    assert len(metrics.read_text().splitlines()) == 40
    process = in_a_process(tmp_path / "cut", *long, "--resume", "--width", "17")
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "width was 16, is 17" in text and len(text.strip().splitlines()) == 1, text


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(tmp_path):
    for devices in (1, 8):
        process = in_a_process(tmp_path / str(devices), *SMALL, devices=devices)
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text
    one, eight = (json.loads((tmp_path / name / "lmc.json").read_text()) for name in ("1", "8"))
    assert (one["provenance"]["device"]["count"], eight["provenance"]["device"]["count"]) == (1, 8)
    for a, b in zip(one["rows"], eight["rows"], strict=True):
        np.testing.assert_allclose(a["loss_path"], b["loss_path"], rtol=1e-5)
        np.testing.assert_allclose(a["accuracy_path"], b["accuracy_path"], atol=1e-9)


@pytest.mark.slow
def test_a_member_that_diverges_is_named_and_the_table_still_comes(tmp_path, capsys):
    words = [
        *SMALL,
        "--learning-rate",
        "1e6",
        "--momentum",
        "0",
        "--init",
        "same",
        "--methods",
        "tna",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["lmc", *words]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "lmc.json").read_text())
    assert result["diverged"] and {"seed", "ratio", "method", "epoch"} <= set(result["diverged"][0])
    assert "diverged in epoch" in printed


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "draw"), [("lamb", "neurons"), ("adamw", "exact")])
def test_other_anchors_and_optimizers_keep_anchors_bit_for_bit(tmp_path, draw, optimizer, monkeypatch):
    seen = {}
    train = ensembles.ensemble.train_ensemble

    def watched(trainer, members, *args, **options):
        result = train(trainer, members, *args, **options)
        seen.update(before=members, after=result[0])
        return result

    monkeypatch.setattr(ensembles.ensemble, "train_ensemble", watched)
    words = [
        "--anchors",
        draw,
        "--optimizer",
        optimizer,
        "--weight-decay",
        "0.1",
        "--learning-rate",
        "0.01",
        "--warmup-epochs",
        "1",
    ]
    import jax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax's own arithmetic
        assert main(["lmc", *SMALL, *words, "--schedule", "cosine", "--out", str(tmp_path / "run")]) == 0
    before, after = seen["before"], seen["after"]
    for m, old, new in zip(*map(jax.tree.leaves, (before.mask, before.params, after.params)), strict=True):
        frozen = ~np.asarray(m)
        assert np.asarray(old)[frozen].tobytes() == np.asarray(new)[frozen].tobytes()
        assert not np.array_equal(old, new)


def test_the_plan_trains_every_distinct_model_once():
    members, cells = lmc_plan.plan([0.0, 0.4], [0, 1], ["same", "different"], ["tna", "prune"])
    assert len(cells) == 16
    assert len(members) == len(set(members)) == 2 * 3 * 3  # seeds x (plain, tna, prune) x (first, same, different)
    for cell in cells:
        first, second = (members[i] for i in cell.members)
        assert (first.start, first.order, second.order) == (0, 0, 1)
        assert second.start == (cell.init == "different")
        assert {first.method, second.method} == {cell.method if cell.ratio else "tna"}


def test_only_a_midpoint_below_the_ends_is_shaded_as_a_barrier():
    from matplotlib import pyplot as plt

    def shaded(middle):
        rows = [
            {"init": "same", "method": "tna", "ratio": ratio, "split": "test", "accuracy_ends": 0.5,
             "accuracy_midpoint": at, "accuracy_barrier": 0.0, "accuracy_path": [0.5, at, 0.5], "loss_path": []}
            for ratio, at in zip((0.0, 0.4), middle, strict=True)
        ]  # fmt: skip
        _, axis = plt.subplots()
        figure = lmc_report._against_ratio({"rows": rows}, "test", "same", ["tna"], [0.0, 0.4])[0]
        png.picture(axis, figure)
        shades = [shade for shade in axis.collections if shade.get_label() == "TNA, barrier"]
        below = [path.vertices[:, 1].max() for shade in shades for path in shade.get_paths()]
        plt.close()
        return below

    assert shaded((0.6, 0.7)) == []
    assert max(shaded((0.3, 0.7))) <= 0.5  # nothing above the ends

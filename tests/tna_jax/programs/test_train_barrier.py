"""`tna train`, `tna barrier`, `tna devices` as a user runs them; waves; networks with BatchNorm."""

import contextlib
import errno
import importlib
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rich.console
import rich.table

from tests.tna_jax.programs.stops import After
from tna_jax.io import restore
from tna_jax.io.errors import UsageError
from tna_jax.programs import data
from tna_jax.programs.barrier import report as barrier_report
from tna_jax.programs.barrier import run as barrier
from tna_jax.programs.cli import progress
from tna_jax.programs.cli.main import main
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.list_runs import run as runs
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.population.paths import groups
from tna_jax.programs.reports import kinds
from tna_jax.programs.runs import folder as run_folder
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.training import ensembles

SMALL = ["--width", "16", "--depth", "2", "--epochs", "3", "--members", "9"]


def rows(run: Path) -> list[dict]:
    return json.loads((run / "barrier.json").read_text())["rows"]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Nine networks and all their barriers."""
    run = tmp_path_factory.mktemp("train") / "run"
    before = Path.cwd()
    os.chdir(run.parent)
    try:
        assert main(["train", *SMALL, "--out", str(run)]) == 0
        assert main(["barrier", str(run), "--alphas", "3"]) == 0
    finally:
        os.chdir(before)
    return run


def fails(capsys, *words: str) -> str:
    assert main(list(words)) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    return printed[-1]


def test_the_run_holds_every_model_and_every_pair(ensemble):
    result = json.loads((ensemble / "train.json").read_text())
    assert len(result["models"]) == 9
    assert result["provenance"]["waves"] == 1
    assert result["provenance"]["predicted_bytes_per_model"]["kept"] > 0
    assert result["provenance"]["peak_bytes"] > 0
    found = rows(ensemble)
    assert len(found) == 2 * 9 * 8 / 2
    ends = {tuple(row["pair"]): row["accuracy_path"] for row in found if row["split"] == "test"}
    for (i, j), path in ends.items():  # the ends are the models as `tna train` scored them
        assert path[0] == pytest.approx(result["models"][i]["test_accuracy"], abs=1e-7)
        assert path[-1] == pytest.approx(result["models"][j]["test_accuracy"], abs=1e-7)
    assert (ensemble / "barrier.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_named_pairs_are_the_same_numbers_and_may_be_reversed(ensemble, capsys):
    every = {tuple(row["pair"]): row for row in rows(ensemble) if row["split"] == "test"}
    assert main(["barrier", str(ensemble), "--alphas", "3", "--pairs", "0-3", "5-2"]) == 0
    named = {tuple(row["pair"]): row for row in rows(ensemble) if row["split"] == "test"}
    assert set(named) == {(0, 3), (5, 2)}
    assert named[0, 3] == every[0, 3]
    assert named[5, 2]["accuracy_path"] == pytest.approx(every[2, 5]["accuracy_path"][::-1])
    assert "5-2" in capsys.readouterr().out


def test_what_does_not_fit_at_once_trains_in_waves_to_the_same_numbers(ensemble, tmp_path, capsys):
    out = tmp_path / "waves"
    assert main(["train", *SMALL, "--out", str(out), "--memory-limit", "0.00175"]) == 0
    one, waves = (json.loads((run / "train.json").read_text()) for run in (ensemble, out))
    assert waves["provenance"]["waves"] == 2
    assert "9 models do not fit into 0.00175 GB at once: 2 waves of up to 8" in capsys.readouterr().err.replace(
        "\n", " "
    )
    assert waves["models"] == one["models"]
    assert "--batch-size" in fails(capsys, "train", *SMALL, "--out", str(tmp_path / "no"), "--memory-limit", "0.0001")
    assert not (tmp_path / "no" / "train.json").exists()


@pytest.mark.parametrize("epochs", [0, 2, 3])  # in the first wave, at its end, in the second
def test_waves_that_were_interrupted_go_on_to_the_same_numbers(ensemble, tmp_path, monkeypatch, epochs):
    out = tmp_path / "waves"
    words = ["train", *SMALL, "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(epochs)))
        assert main([*words, "--memory-limit", "0.00175"]) == 130
    assert not (out / "train.json").exists()
    assert len((out / "metrics.jsonl").read_text().splitlines()) == epochs + 1
    assert main([*words, "--resume"]) == 0  # more memory than before: the waves stay as they were
    found, whole = (json.loads((run / "train.json").read_text()) for run in (out, ensemble))
    assert found["models"] == whole["models"]
    assert found["provenance"]["waves"] == 2
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == list(range(6))


@pytest.mark.slow
def test_a_network_with_batch_norm_goes_the_whole_way(tmp_path):
    try:
        data.load("mnist")
    except data.DataError as error:
        pytest.skip(str(error))
    out = tmp_path / "norm"
    words = [
        "--dataset",
        "mnist",
        "--model",
        "cnn",
        "--norm",
        "batch",
        "--train-examples",
        "64",
        "--test-examples",
        "30",
    ]
    run = ["--epochs", "1", "--members", "2", "--batch-size", "32", "--augment", "crop-flip", "--out", str(out)]
    assert main(["train", *words, *run]) == 0
    assert main(["barrier", str(out), "--alphas", "3", "--calibration-examples", "32"]) == 0
    result, found = json.loads((out / "train.json").read_text()), rows(out)
    assert result["provenance"]["placement"] == "loop"
    assert found[1]["accuracy_path"][0] == pytest.approx(result["models"][0]["test_accuracy"])
    assert np.isfinite(found[1]["loss_path"]).all()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train --members 0", "--members must be at least 1"),
        ("train --ratio 1", "--ratio must lie in [0, 1)"),
        ("train --init diferent", "did you mean 'different'"),
        ("train --model resnet21", "or 'resnet20'"),
        ("train --model cnn", "the CNN needs images with sides of at least 18, got 8 x 8"),
        ("train --model resnet20 --depth 3", "depth"),
        ("train --model mlp --norm layer", "norm"),
        ("train --model resnet20 --norm bach", "batch"),
        ("train --precision bf6", "did you mean 'bf16'"),
        ("train --augment crop_flip", "did you mean 'crop-flip'"),
        ("train --memory-limit 0", "--memory-limit must be above 0"),
        ("train --coordinator here:1", "give all three"),
        ("train --coordinator here:1 --num-processes 2 --process-id 2", "--process-id must lie in 0 to 1, got 2"),
        ("barrier", "RUN Run folder of tna train (or tna lmc). (required)"),
        ("barrier gone", "gone is not a run folder"),
        ("barrier RUN --pairs 0-9 1-1 a", "--pairs 0-9 1-1 a: write I-J with two different numbers from 0 to 8"),
        ("barrier RUN --pairs 0-1 0-1 2-3 1-0", "--pairs: the same pair more than once: 0-1 = 0-1 = 1-0"),
        ("barrier RUN --alphas 4", "odd number"),
        ("barrier RUN --placement vmpa", "did you mean 'vmap'"),
    ],
)
def test_bad_options_are_answered_in_one_line(ensemble, capsys, words, expected):
    message = fails(capsys, *words.replace(" RUN", f" {ensemble}").split())
    assert expected in message
    assert "Traceback" not in message


def test_devices_lists_them_all(capsys):
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert "TFRT_CPU_7" in printed or "cpu:7" in printed
    assert "free for models" in printed


def test_pairs_are_grouped_so_that_their_models_fit():
    pairs = np.array([[0, 1], [0, 2], [1, 2], [3, 4], [0, 4]])
    assert [group.tolist() for group in groups(pairs, 3)] == [[[0, 1], [0, 2], [1, 2]], [[3, 4], [0, 4]]]
    assert [len(group) for group in groups(pairs, 2)] == [1, 1, 1, 1, 1]
    assert len(groups(pairs, 5)) == 1


def copied(run: Path, to: Path, **config) -> Path:
    """A run as it was before it came to its end, if more epochs are asked for; no results."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("barrier.*", "train.json"))
    found = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**found, **config}))
    return to


def test_an_interrupted_run_says_so_in_results_and_reports(ensemble, tmp_path, capsys, monkeypatch):
    run = copied(ensemble, tmp_path / "a b", epochs=7)
    drawn = []
    monkeypatch.setattr(barrier_report, "figure", lambda result, file: drawn.append(checkpoint_status.title(result)))
    step = restore.listed(run / "checkpoints")[0]
    assert main(["barrier", str(run), "--alphas", "3", "--pairs", "0-1"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert (
        f"is not finished: these are its models at checkpoint {step} of 7 epochs; to go on: tna resume '{run}'" in told
    )
    assert "1 pair" in told and "1 pairs" not in told
    assert drawn[0].endswith(f"NOT FINISHED: checkpoint {step} of 7")
    result = json.loads((run / "barrier.json").read_text())
    assert result["checkpoints"] == [{"run": str(run), "step": step, "last": 7}]
    assert "is not finished" in result["warnings"][0]
    assert not any("Older" in note for part in kinds.read(str(run), "test").parts for note in part.notes)
    (run / "checkpoints" / "7").mkdir()
    notes = [note for part in kinds.read(str(run), "test").parts for note in part.notes]
    assert f"Older than the run: made of checkpoint {step}, the newest is 7. Run the program again." in notes
    finished = json.loads((ensemble / "barrier.json").read_text())
    assert not any("not finished" in warning for warning in finished["warnings"])
    assert "FINISHED" not in checkpoint_status.title(finished)


def test_a_run_that_cannot_be_written_is_refused_before_anything_is_computed(ensemble, capsys, monkeypatch):
    def full(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(run_folder.tempfile, "TemporaryFile", full)
    monkeypatch.setattr(barrier, "load", None)
    for program in ("barrier", "fuse", "landscape", "rebasin"):
        message = fails(capsys, program, str(ensemble))
        assert "where the results go: Read-only file system; copy the run" in message and "resume" not in message


def test_missing_data_does_not_advise_an_option_that_there_is_not(ensemble, tmp_path, capsys, monkeypatch):
    run = copied(ensemble, tmp_path / "run", dataset="mnist")
    monkeypatch.setenv("TNA_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(cold_tasks.tokenizer, "load", lambda folder: None)
    for program in ("barrier", "fuse"):
        message = fails(capsys, program, str(run))
        assert "mnist was not found" in message and "--download" not in message
    assert "or pass --download" in fails(capsys, "train", "--dataset", "mnist")
    with pytest.raises(UsageError, match="sst2 was not found.*nor could these be read: cr$") as error:
        cold_tasks.load(("sst2", "cr"), (), SimpleNamespace(checkpoint="", data_dir=None))
    assert "--download" not in str(error.value)


def test_hints_are_words_of_a_shell(tmp_path):
    assert Run(Path("k/a b")).word == "'k/a b'" and Run(Path("k/ab")).word == "k/ab"


def test_imported_models_do_not_go_on(ensemble, tmp_path, capsys):
    run = copied(ensemble, tmp_path / "run", program="import")
    assert "holds imported models, which do not train: tna fuse" in fails(capsys, "resume", str(run))


@pytest.mark.parametrize("words", [["report", "RUN", "-o", "F.html"], ["report", "RUN", "-o", "/proc/a.html"], ["barrier", "N"],
                                   ["resume", "N"], ["report", "N"], ["merge", "N", "b", "-o", "x"], ["export", "RUN", "-o", "N"]])  # fmt: skip
def test_what_the_system_says_of_a_file_is_one_line(ensemble, tmp_path, capsys, words):
    (tmp_path / "F.html").mkdir()
    given = {"RUN": str(ensemble), "N": "n" * 300}
    message = fails(capsys, *(given.get(word, word) for word in words))
    assert "Traceback" not in message and message.startswith(f"tna {words[0]}: ")


def test_what_users_name_is_no_markup(capsys):
    progress.console.print("a [/b] [x] [bold]c :smile:", soft_wrap=True)
    assert capsys.readouterr().err == "a [/b] [x] [bold]c :smile:\n"
    table = rich.table.Table(title="[/b] [x]")
    table.add_column("[y]")
    table.add_row("[bold] [/c]")
    progress.wide_console().print(table)
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("[/b] [x]", "[y]", "[bold] [/c]"))


def test_tables_are_as_wide_as_asked_for(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert progress.wide_console().width >= 136
    monkeypatch.setenv("COLUMNS", "77")
    assert progress.wide_console().width == 77


@pytest.mark.parametrize("width", [80, 104, 120, 160])
def test_a_narrow_screen_cuts_no_number_off(width, monkeypatch):
    screen = rich.console.Console(file=io.StringIO(), width=width, force_terminal=True)
    monkeypatch.setattr(progress, "console", screen)
    with progress.TrainingBar(16, 60_000, 600, 599) as bar:
        bar.epoch(0.1234, 0.9876, 16)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())
    last = shown.strip().splitlines()[-1]
    assert "600/600" in last and "accuracy 0.9876" in last and "left 0:00:00" in last and "…" not in last


def test_ctrl_c_while_a_program_is_imported_is_one_line(monkeypatch, capsys):
    def stop(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", stop)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "tna train: stopped at once\n"


def test_runs_are_compared_within_a_program_and_unset_options_left_out(tmp_path):
    for name, values in {"a": {"program": "train", "width": 3, "depth": None}, "b": {"program": "train", "width": 4, "depth": 2},
                         "c": {"program": "cold", "tasks": ["cr"]}}.items():  # fmt: skip
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "config.json").write_text(json.dumps(values))
    rows = [runs.describe(tmp_path / "all" / name) for name in "abc"]
    assert runs.differences(rows) == ["width=3", "width=4, depth=2", ""]

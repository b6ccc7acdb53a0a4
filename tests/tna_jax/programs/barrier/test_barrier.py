"""`tna barrier` as a user runs it: every pair, named pairs, runs that are not finished or cannot be written."""

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails
from tna_jax.io import restore
from tna_jax.io.errors import UsageError
from tna_jax.programs.barrier import curves
from tna_jax.programs.barrier import run as barrier
from tna_jax.programs.cli.main import main
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.population.paths import groups
from tna_jax.programs.reports import kinds
from tna_jax.programs.runs import folder as run_folder


def rows(run: Path) -> list[dict]:
    return json.loads((run / "barrier.json").read_text())["rows"]


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


@pytest.mark.slow
def test_named_pairs_are_the_same_numbers_and_may_be_reversed(ensemble, capsys):
    every = {tuple(row["pair"]): row for row in rows(ensemble) if row["split"] == "test"}
    assert main(["barrier", str(ensemble), "--alphas", "3", "--pairs", "0-3", "5-2"]) == 0
    named = {tuple(row["pair"]): row for row in rows(ensemble) if row["split"] == "test"}
    assert set(named) == {(0, 3), (5, 2)}
    assert named[0, 3] == every[0, 3]
    assert named[5, 2]["accuracy_path"] == pytest.approx(every[2, 5]["accuracy_path"][::-1])
    assert "5-2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("barrier", "RUN is missing: run folder of tna train (or tna lmc); tna barrier --help"),
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


def test_pairs_are_grouped_so_that_their_models_fit():
    pairs = np.array([[0, 1], [0, 2], [1, 2], [3, 4], [0, 4]])
    assert [group.tolist() for group in groups(pairs, 3)] == [[[0, 1], [0, 2], [1, 2]], [[3, 4], [0, 4]]]
    assert [len(group) for group in groups(pairs, 2)] == [1, 1, 1, 1, 1]
    assert len(groups(pairs, 5)) == 1


def test_bends_train_in_groups_that_fit():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    found = [
        [group.tolist() for group in curves.groups(pairs, models)]
        for models in (0, 2 * curves.COPIES, 99 * curves.COPIES)
    ]
    assert found == [[[[0, 1]], [[0, 2]], [[1, 2]]], [[[0, 1], [0, 2]], [[1, 2]]], [pairs.tolist()]]


def copied(run: Path, to: Path, **config) -> Path:
    """A run as it was before it came to its end, if more epochs are asked for; no results."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("barrier.*", "train.json"))
    found = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**found, **config}))
    return to


@pytest.mark.slow
def test_an_interrupted_run_says_so_in_results_and_reports(ensemble, tmp_path, capsys, monkeypatch):
    run = copied(ensemble, tmp_path / "a b", epochs=7)
    headings = []
    monkeypatch.setattr(barrier, "present", lambda description, file: headings.append(description.heading))
    step = restore.listed(run / "checkpoints")[0]
    assert main(["barrier", str(run), "--alphas", "3", "--pairs", "0-1"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert (
        f"is not finished: these are its models at checkpoint {step} of 7 epochs; to resume: tna resume '{run}'" in told
    )
    assert "1 pair" in told and "1 pairs" not in told
    assert headings[0].endswith(f"NOT FINISHED: checkpoint {step} of 7")
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
    monkeypatch.setattr(cold_tasks.backbone, "require_kind", lambda *checkpoint: None)
    monkeypatch.setattr(cold_tasks.tokenizer, "load", lambda folder: None)
    for program in ("barrier", "fuse"):
        message = fails(capsys, program, str(run))
        assert "mnist was not found" in message and "--download" not in message
    assert "or pass --download" in fails(capsys, "train", "--dataset", "mnist")
    with pytest.raises(UsageError, match="sst2 was not found.*nor could these be read: cr$") as error:
        cold_tasks.load(("sst2", "cr"), (), SimpleNamespace(checkpoint="", data_dir=None))
    assert "--download" not in str(error.value)


@pytest.mark.slow
def test_curved_paths_go_around_the_barrier_and_do_not_depend_on_the_other_pairs(ensemble, tmp_path, capsys):
    words = ["--alphas", "5", "--curve-epochs", "8", "--curve-learning-rate", "0.003"]
    ranked = sorted(
        (row for row in rows(ensemble) if row["split"] == "test"), key=lambda row: -row["loss_barrier_linear"]
    )
    first, second = ("-".join(map(str, row["pair"])) for row in ranked[:2])
    run = copied(ensemble, tmp_path / "run")
    with jax.numpy_dtype_promotion("standard"):  # Adam's own arithmetic
        assert main(["barrier", str(run), *words, "--pairs", first, second]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "curves whose middle was trained for 8 epochs" in told and "away from the middle of their line" in told
    result = json.loads((run / "barrier.json").read_text())
    curved = {(*row["pair"], row["split"]): row for row in result["curves"]}
    for row in result["rows"]:
        bent = curved[(*row["pair"], row["split"])]
        assert [bent["loss_path"][i] for i in (0, -1)] == pytest.approx(
            [row["loss_path"][i] for i in (0, -1)], rel=1e-5
        )
        assert 0.05 < bent["deflection"] < 5
    straight = np.mean([row["loss_barrier_linear"] for row in result["rows"]])
    assert np.mean([row["loss_barrier"] for row in curved.values()]) < 0.5 * straight
    with jax.numpy_dtype_promotion("standard"):
        assert main(["barrier", str(run), *words, "--pairs", second, "--placement", "map"]) == 0
    alone = {(*row["pair"], row["split"]): row for row in json.loads((run / "barrier.json").read_text())["curves"]}
    assert {key: row["loss_path"] for key, row in curved.items() if key in alone} == {
        key: pytest.approx(row["loss_path"], rel=1e-4) for key, row in alone.items()
    }
    names = [figure.title for figure in barrier.barrier_report.describe(result).blocks if hasattr(figure, "title")]
    assert "Accuracy along straight and curved paths" in names


def replaced(run: Path) -> None:
    """What another process with --overwrite does to a run."""
    shutil.rmtree(run / "checkpoints")
    (run / "barrier.json").unlink()
    (run / "provenance.json").write_text('{"started": "just now"}')


def test_results_of_a_run_that_is_replaced_meanwhile_are_kept_beside_it(ensemble, tmp_path, monkeypatch, capsys):
    run, evaluate = Path(shutil.copytree(ensemble, tmp_path / "run")), barrier.evaluate_pairs

    def meanwhile(*arguments, **options):
        paths = evaluate(*arguments, **options)
        replaced(run)
        return paths

    monkeypatch.setattr(barrier, "evaluate_pairs", meanwhile)
    said = fails(capsys, "barrier", str(run), "--alphas", "3", "--pairs", "0-1")
    kept = tmp_path / "run-before.barrier.json"
    assert said.endswith(f"the results of the models that it held are in {kept}: tna report {kept}")
    assert not (run / "barrier.json").exists()
    assert main(["report", str(kept), "-o", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize(
    "words", ["barrier RUN --alphas 3", "export RUN --model 0 -o OUT.safetensors", "fuse RUN OTHER"]
)
def test_options_of_one_run_never_go_with_the_models_of_another(ensemble, tmp_path, monkeypatch, capsys, words):
    """The options are read first, the models later."""
    run, read = Path(shutil.copytree(ensemble, tmp_path / "run")), restore.contents

    def replacing(folder, step):
        found = read(folder, step)
        if folder.parent.name == "run":
            replaced(run)
        return found

    monkeypatch.setattr(restore, "contents", replacing)
    words = words.replace("RUN", str(run)).replace("OTHER", str(ensemble)).replace("OUT", str(tmp_path / "out"))
    assert f"{run} is not the run any more that was read" in fails(capsys, *words.split())
    assert not (tmp_path / "out.safetensors").exists() and not (run / "fuse.json").exists()


def test_a_report_is_of_one_run(ensemble, tmp_path, monkeypatch, capsys):
    run, read = Path(shutil.copytree(ensemble, tmp_path / "run")), kinds.read

    def replacing(name, split):
        story = read(name, split)
        replaced(run)
        return story

    monkeypatch.setattr(kinds, "read", replacing)
    assert f"{run} is not the run any more that was read" in fails(capsys, "report", str(run))
    assert not (run / "report.html").exists()

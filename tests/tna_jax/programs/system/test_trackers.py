"""`--log`: what TensorBoard and Weights & Biases show is what metrics.jsonl says; a view never ends a run."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tna_jax.programs.stops import After
from tna_jax.programs.cli.main import main
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.system import distributed, trackers
from tna_jax.programs.training import ensembles

TINY = ["--width", "8", "--depth", "1", "--epochs", "4", "--members", "2"]
SHOWN = ("loss", "accuracy", "images_per_second", "epoch", "wave")


def train(out: str, *more: str) -> int:
    return main(["train", *TINY, "--out", out, *more])


def logged(out: str) -> dict[str, list[tuple[int, float]]]:
    """Each number of metrics.jsonl as (step, value)."""
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return {name: [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines] for name in SHOWN}


def events(out: str) -> dict[str, list[tuple[int, float]]]:
    """Each scalar that TensorBoard would draw, read with its own reader."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(str(Path(out) / "tensorboard"), size_guidance={reading.SCALARS: 0}).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@contextlib.contextmanager
def stopping_after(epochs: int):
    """Asks runs to stop after that many epochs more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensembles, "stoppable", lambda: contextlib.nullcontext(After(epochs)))
        yield


@pytest.mark.slow
def test_tensorboard_shows_what_was_logged():
    pytest.importorskip("tensorboard")
    assert train("run", "--log", "tensorboard") == 0
    shown = events("run")
    result = json.loads(Path("run/train.json").read_text())["models"]
    assert {name: shown[name] for name in SHOWN} == logged("run")
    ((step, value),) = shown["test_accuracy"]
    assert step == 4 and value == pytest.approx(sum(m["test_accuracy"] for m in result) / 2)


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_log():
    pytest.importorskip("tensorboard")
    with stopping_after(1):
        assert train("run", "--log", "tensorboard") == 130
    assert json.loads(Path("run/config.json").read_text())["started_with"]["log"] == "tensorboard"
    with open("run/metrics.jsonl", "a") as file:  # an epoch that was logged, but not saved
        file.write('{"step": 2, "epoch": 2, "wave": 0, "loss": 9.0, "accuracy": 0.0, "images_per_second": 1.0}\n')
    view = trackers.TensorBoard(Path("run"), {})
    view.log(2, {"loss": 9.0})
    view.close()
    assert main(["resume", "run"]) == 0
    shown = events("run")
    assert {name: shown[name] for name in SHOWN} == logged("run")
    assert [step for step, _ in shown["loss"]] == [0, 1, 2, 3]


class Broken:
    """A view whose disk is full after the first step, and which cannot even be closed."""

    def __init__(self, folder, config):
        self.steps = 0

    def log(self, step, values):
        self.steps += 1
        if self.steps > 1:
            raise OSError("No space left on device")

    def rewind(self, step):
        pass

    def close(self):
        raise RuntimeError("closed badly")


@pytest.mark.slow
def test_a_view_that_fails_in_the_middle_is_given_up_and_the_run_goes_on(monkeypatch, capsys):
    assert train("plain") == 0
    monkeypatch.setitem(trackers.TRACKERS, "json", Broken)  # a name for which there is a package
    capsys.readouterr()
    assert train("broken", "--log", "json") == 0
    told = capsys.readouterr().err
    assert told.count("warning: --log json failed and is closed") == 1 and "No space left" in told
    plain, broken = (json.loads((Path(run) / "train.json").read_text()) for run in ("plain", "broken"))
    assert plain["models"] == broken["models"]
    assert len(Path("broken/metrics.jsonl").read_text().splitlines()) == 4


def test_what_cannot_be_opened_is_said_before_training(monkeypatch, capsys):
    def refuse(folder, config):
        raise RuntimeError("no API key\nmore")

    monkeypatch.setitem(trackers.TRACKERS, "json", refuse)
    assert train("run", "--log", "json") == 2
    assert capsys.readouterr().err.strip().endswith("tna train: --log json: no API key")
    assert not Path("run/metrics.jsonl").exists()


def test_unknown_and_missing_views_are_refused_before_anything_is_made(monkeypatch, capsys):
    assert train("run", "--log", "tensorbord") == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    assert train("run", "--log", "tensorboard,wandb") == 2
    assert "not installed; pip install 'tna-jax[tensorboard,wandb]'" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.slow
def test_nothing_is_imported_or_written_unless_asked_for():
    code = (
        "import sys, tna_jax.programs.train.run, tna_jax.programs.lmc.run; from tna_jax.programs.system import trackers; trackers.chosen(None);"
        "assert not {'wandb', 'tensorboard', 'plotly', 'jinja2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=True)
    assert train("run") == 0
    assert not [name for name in trackers.FOLDERS if (Path("run") / name).exists()]


def test_only_the_main_process_has_trackers(monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "json", Broken)
    Path("run").mkdir()
    run = Run(Path("run"))
    run.watch("json", {})
    assert list(run.trackers.open) == ["json"]
    monkeypatch.setattr(distributed, "is_main_process", lambda: False)
    other = Run(Path("run"))
    other.watch("json", {})
    assert not other.trackers.open


@pytest.mark.slow
def test_a_run_that_is_replaced_leaves_no_events_of_the_old_one():
    pytest.importorskip("tensorboard")
    assert train("run", "--log", "tensorboard") == 0
    assert train("run", "--log", "tensorboard", "--overwrite") == 0
    assert [step for step, _ in events("run")["loss"]] == [0, 1, 2, 3]
    assert len(list(Path("run/tensorboard").iterdir())) == 1


def test_words_of_a_line_name_its_curves_and_what_is_no_number_is_left_out():
    seen = []

    class Kept(Broken):
        def log(self, step, values):
            seen.append((step, dict(values)))

    views = trackers.Trackers()
    views.open["kept"] = Kept(None, None)
    views.log({"step": 3, "anchors": "pfn", "accuracy": 0.5, "loss": None, "refused": [1], "done": True})
    views.log({"step": 4, "rows": []})
    assert seen == [(3, {"pfn/accuracy": 0.5})]


def chunks(data: bytes):
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log, in blocks of 32 KiB."""
    at, held = 7, b""
    while at + 7 <= len(data):
        left = -at % 32768
        if 0 < left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


def shown_offline(run: str) -> dict[int, float]:
    """The losses by step in all .wandb files of a run, later files over earlier ones.

    `finish` returns before W&B's own process has written the last records; `teardown`, which the end of a program calls, waits for it.
    """
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()
    found = {}
    for file in sorted(Path(run, "wandb").glob("offline-run-*/*.wandb")):
        for data in chunks(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            if "loss" in items:
                found[int(items["step"])] = items["loss"]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_holds_what_was_logged_and_goes_on_after_a_resume(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with stopping_after(1):
        assert train("run", "--log", "wandb") == 130
    assert main(["resume", "run"]) == 0
    assert sorted(shown_offline("run").items()) == logged("run")["loss"]
    files = list(Path("run/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and len({file.name for file in files}) == 1  # both parts have the run's id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_parts_of_a_wandb_run_that_start_within_one_second_are_all_kept(monkeypatch):
    """W&B names the folder of a part by the second."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("run").mkdir()
    Path("run/provenance.json").write_text("{}")
    for step in range(5):
        view = trackers.WandB(Path("run"), {})
        view.log(step, {"loss": step / 4})
        view.close()
    assert len(list(Path("run/wandb").glob("offline-run-*"))) == 5
    assert shown_offline("run") == {step: step / 4 for step in range(5)}

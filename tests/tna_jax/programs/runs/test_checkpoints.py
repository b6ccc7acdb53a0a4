"""Checkpoints: what was saved comes back bit for bit; damage is found, named and passed over; failures say what is left."""

import errno
import os
import random
import re
import shutil
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.parameters import slow
from tna_jax.io import manifest, restore
from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import Damaged
from tna_jax.programs.runs import restore as resuming
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import Run


def tree(seed: int) -> dict:
    """Parameters with NaN, -0.0, bfloat16 and a scalar for each model; an optimizer state without leaves."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 50, 20)).astype(np.float32)
    kernel[0, 0, :3] = [np.nan, -0.0, np.inf]
    low = rng.normal(size=(3, 7)).astype(ml_dtypes.bfloat16)
    return {"params": {"Dense_0": {"kernel": kernel, "low": low}}, "opt_state": (), "state": {"n": np.arange(3)}}


def same(a: dict, b: dict) -> bool:
    a, b = manifest.named(a), manifest.named(b)
    return list(a) == list(b) and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "run" / "checkpoints"
    with Checkpoints(folder, minutes=0, kept=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, tree(step))
    return folder


def test_the_last_ones_are_kept_and_come_back_bit_for_bit(saved):
    assert restore.listed(saved) == [3, 2]
    step, found, damaged = restore.newest(saved, tree(0))
    assert (step, damaged) == (3, {})
    assert same(found, tree(3))
    assert not same(found, tree(2))
    step, some, _ = restore.newest(saved, {"state": tree(0)["state"]})
    assert same(some, {"state": tree(3)["state"]})


def test_arrays_without_entries_come_back(tmp_path):
    state = {"params": {"none": np.zeros((3, 0, 4), ml_dtypes.bfloat16), "w": np.ones(3, np.float32)}}
    with Checkpoints(tmp_path / "run" / "checkpoints", minutes=0) as checkpoints:
        checkpoints.save(1, state)
    step, found, _ = restore.newest(tmp_path / "run" / "checkpoints", state)
    assert step == 1 and same(found, state) and found["params"]["none"].shape == (3, 0, 4)
    state["params"]["none"] = np.zeros((3, 0, 5), ml_dtypes.bfloat16)
    with pytest.raises(UsageError, match=r"none \(bfloat16 \[3, 0, 4\] instead of bfloat16 \[3, 0, 5\]\)"):
        restore.newest(tmp_path / "run" / "checkpoints", state)


def saving(folder: Path, step: int) -> None:
    with Checkpoints(folder, minutes=0) as checkpoints:
        checkpoints.save(step, tree(step))


def test_a_save_the_manager_refuses_is_an_error(saved):
    with pytest.raises(UsageError, match=r"orbax did not accept step 1.*checkpoint 3 is intact"):
        saving(saved, 1)


def test_a_later_call_reports_the_failure_of_a_save(saved, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with Checkpoints(saved, minutes=0) as checkpoints:
        monkeypatch.setattr(checkpoints.store.manager, "save", full)
        checkpoints.save(4, tree(4))
        while not checkpoints.writing.done():
            time.sleep(0.01)
        with pytest.raises(UsageError, match="No space left on device; checkpoint 3 is intact"):
            checkpoints.due(1)
    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(UsageError, match="No space left on device"):
        saving(saved, 4)  # leaving the block waits


def damage(file: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if rng.random() < 0.3 or not data:
        file.write_bytes(data[: rng.randrange(len(data) + 1) // 2])
    else:
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(data))


@pytest.mark.parametrize("rounds", [6, *slow(600)])
def test_a_flipped_bit_or_a_cut_file_is_never_taken_for_the_state(saved, tmp_path, rounds):
    """Either the damage did not touch the data, or the checkpoint before is used: nothing else is ever returned."""
    rng, passed_over = random.Random(rounds), 0
    whole = tmp_path / "whole"
    shutil.copytree(saved, whole)
    for _ in range(rounds):
        shutil.rmtree(saved)
        shutil.copytree(whole, saved)
        data = sorted(path for path in (saved / "3").rglob("*") if path.is_file() and path.stat().st_size)
        damage(rng.choices(data, [path.stat().st_size for path in data])[0], rng)
        step, found, damaged = restore.newest(saved, tree(0))
        assert same(found, tree(step))
        assert (step == 2) == (3 in damaged)
        passed_over += step == 2
    assert passed_over > rounds / 3


def test_damage_is_named_and_moved_out_of_the_way_when_the_run_goes_on(saved, capsys):
    with pytest.MonkeyPatch.context() as patch:  # a flip that decoding cannot notice
        patch.setattr(manifest, "digest", lambda array: "0" * 64)
        with Checkpoints(saved, minutes=0) as checkpoints:
            checkpoints.save(4, tree(4))
    step, found = resuming.restore(saved, tree(0))
    assert step == 3
    assert same(found, tree(3))
    told = " ".join(capsys.readouterr().err.split())
    assert "checkpoint 4 of" in told and "using checkpoint 3" in told
    assert "params/Dense_0/kernel, params/Dense_0/low, state/n" in told
    assert restore.listed(saved) == [3]
    assert (saved.parent / "damaged" / "4").is_dir()
    with Checkpoints(saved, minutes=0) as checkpoints:  # orbax refuses steps that are not the newest
        checkpoints.save(4, tree(5))
    assert same(restore.newest(saved, tree(0))[1], tree(5))


def test_only_damaged_checkpoints_are_an_error_that_names_them_all(saved):
    for step in (2, 3):
        (saved / str(step) / restore.MANIFEST).write_text("{")
    with pytest.raises(UsageError, match="checkpoint 3: its list.*checkpoint 2: its list"):
        restore.newest(saved, tree(0))
    assert restore.listed(saved) == [3, 2]


@pytest.mark.parametrize("read", ["newest", "newest_parts"])
def test_a_run_that_goes_on_removes_what_is_being_read_and_nothing_was_damaged(saved, monkeypatch, read):
    """What is there by then is read: `tna barrier` on a run that trains, whose models are large."""
    contents, looks = restore.contents, []

    def slow(folder, step):
        looks.append(step)
        if len(looks) == 1:
            with Checkpoints(folder, minutes=0, kept=2) as checkpoints:
                for later in (4, 5):
                    checkpoints.save(later, tree(later))
        return contents(folder, step)

    monkeypatch.setattr(restore, "contents", slow)
    step, found, damaged = restore.newest(saved, tree(0)) if read == "newest" else restore.newest_parts(saved, "state")
    assert (step, damaged) == (5, {})
    assert same(found, tree(5)) if read == "newest" else same(restore.nested(found), {"state": tree(5)["state"]})


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_the_system_does_not_let_be_read_is_not_damaged(saved, monkeypatch, number):
    """`tna resume` moves damaged checkpoints away, and advises to start again where all are."""

    def refused(*arguments, **options):
        raise ValueError(f"NOT_FOUND: Error opening: {os.strerror(number)} [source locations]")

    monkeypatch.setattr(ocp.Checkpointer, "restore", refused)
    with pytest.raises(UsageError, match=f"cannot read .*: {os.strerror(number)}$"):
        resuming.restore(saved, tree(0))

    def refuses(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuses)
    with pytest.raises(UsageError, match=f"cannot read .*: {os.strerror(number)}$"):
        resuming.restore(saved, tree(0))
    assert restore.listed(saved) == [3, 2]


def test_another_network_is_refused_with_every_leaf(saved):
    other = tree(0)
    dense = other["params"]["Dense_0"]
    dense["bias"] = dense["low"].astype(np.float32)
    dense["kernel"] = dense["kernel"][:, :, 1:]
    del dense["low"]
    with pytest.raises(UsageError) as error:
        restore.newest(saved, other)
    for part in (
        "checkpoint 3",
        "missing: params/Dense_0/bias",
        "too many: params/Dense_0/low",
        "params/Dense_0/kernel (float32 [3, 50, 20] instead of float32 [3, 50, 19])",
    ):
        assert part in str(error.value)


def test_a_checkpoint_of_a_later_version_is_refused_not_passed_over(saved, monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 2)
    with Checkpoints(saved, minutes=0) as checkpoints:
        checkpoints.save(4, tree(4))
    monkeypatch.undo()
    with pytest.raises(UsageError, match="has format 2, this version reads up to 1"):
        restore.newest(saved, tree(0))


@pytest.mark.parametrize("value", [None, [], {"leaves": 3}, {"leaves": []}, {"leaves": [[1]], "sha256": "x"}])
def test_manifests_that_are_none(value):
    with pytest.raises(Damaged):
        manifest.parse(value, "here")


def test_intervals_do_not_depend_on_the_systems_clock(saved, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    with Checkpoints(saved, minutes=1 / 600, epochs=3) as checkpoints:
        assert not checkpoints.due(1)
        assert checkpoints.due(3)
        time.sleep(0.15)
        assert checkpoints.due(1)


def test_a_path_in_another_encoding_is_refused_before_training(tmp_path):
    name = os.fsdecode("café".encode("latin-1"))
    with pytest.raises(
        UsageError, match=r"--out .*caf\\udce9: checkpoints cannot be kept in a folder whose path is no UTF-8"
    ):
        Run.create(str(tmp_path / name), "train", (), overwrite=False, resume=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lr[0.1]", "a]", "what?", "*"])
def test_a_path_that_orbax_takes_for_a_pattern_is_refused_before_training(tmp_path, name):
    with pytest.raises(UsageError, match=r"name another folder, or rename"):
        Checkpoints(tmp_path / name / "run" / "checkpoints", minutes=0)
    for out in (name, f"{name}/run"):
        with pytest.raises(UsageError, match=rf"^--out {re.escape(str(tmp_path / out))}: .* path holds"):
            Run.create(out, "train", (), overwrite=False, resume=False)
        assert not Path(out).exists()


def test_a_run_that_is_replaced_takes_along_what_was_computed_of_its_models(tmp_path):
    """`tna report` showed the old models' barriers as the new ones'."""
    run = tmp_path / "run"
    run.mkdir()
    for name in (
        "config.json",
        "plan.json",
        "train.json",
        "barrier.json",
        "rebasin.json",
        "landscape.png",
        "mine.json",
    ):
        (run / name).write_text("{}")
    with Run.create(str(run), "train", ("train.json",), overwrite=True, resume=False):
        held = {path.name for path in run.iterdir()}
    assert "mine.json" in held and not held & {"train.json", "barrier.json", "rebasin.json", "landscape.png"}


def test_a_relative_folder_is_refused_for_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "old [1]").mkdir()
    monkeypatch.chdir(tmp_path / "old [1]")
    with pytest.raises(UsageError, match=r"old \[1\]/run: .* path holds \[ or \]"):
        Run.create("run", "train", (), overwrite=False, resume=False)


def test_a_save_without_what_makes_it_readable_is_not_reported_as_saved(saved, monkeypatch):
    done = ocp.CheckpointManager.wait_until_finished

    def lossy(manager):
        done(manager)
        (saved / "4" / "state" / "manifest.ocdbt").unlink(missing_ok=True)

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", lossy)
    with pytest.raises(UsageError, match=r"wrote no manifest\.ocdbt for step 4.*checkpoint 3 is intact"):
        saving(saved, 4)
    assert restore.listed(saved)[0] == 3

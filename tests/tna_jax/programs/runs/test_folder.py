"""Run folders that are made, replaced and refused: nothing of an older run is taken for the new one's, whatever stops the program."""

import datetime
import errno
import os
import shutil
import types
from pathlib import Path

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json
from tna_jax.io.restore import listed
from tna_jax.programs.runs import folder as folders
from tna_jax.programs.runs import lock
from tna_jax.programs.runs.folder import CONFIG, PLAN, PROVENANCE, Run


@pytest.fixture
def old(tmp_path) -> Path:
    """The folder of a run with a checkpoint."""
    run = tmp_path / "run"
    (run / "checkpoints" / "3").mkdir(parents=True)
    for name in (CONFIG, PLAN, PROVENANCE, "lmc.json"):
        write_json(run / name, {"program": "lmc"})
    return run


def replaced(run: Path) -> Run:
    return Run.create(str(run), "lmc", (), overwrite=True, resume=False)


def test_checkpoints_that_lie_elsewhere_are_replaced_there(old, tmp_path):
    """Steps that are there are not saved again: `tna barrier` would take the models of the run that was replaced."""
    shutil.move(old / "checkpoints", tmp_path / "large")
    (old / "checkpoints").symlink_to(tmp_path / "large")
    with replaced(old) as run:
        assert listed(run.checkpoints) == [] and run.checkpoints == tmp_path / "large"


def test_what_cannot_be_removed_is_said(old, monkeypatch):
    """A file that another machine holds open, say, which stays in its folder."""

    def busy(path, *_, **__):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), f"{path}/.nfs01")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        with pytest.raises(
            UsageError, match=r"cannot remove .*\.nfs01: .* busy; remove .*checkpoints, or name another --out$"
        ):
            replaced(old)
    assert (old / CONFIG).is_file() and not lock.held(old)
    replaced(old).__exit__()
    assert listed(old / "checkpoints") == []


@pytest.mark.parametrize("after", range(6))
def test_a_stop_in_the_middle_of_replacing_leaves_a_run_that_can_be_replaced(old, monkeypatch, after):
    removals = []

    def stopped(remove):
        def removing(path, *more, **options):
            if len(removals) == after:
                raise KeyboardInterrupt
            removals.append(path)
            return remove(path, *more, **options)

        return removing

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped(shutil.rmtree))
        patch.setattr(Path, "unlink", stopped(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            replaced(old)
    Run.open(str(old))
    replaced(old).__exit__()
    assert sorted(path.name for path in old.iterdir()) in ([], [lock.LOCK])


class Noon(datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, zone: datetime.tzinfo | None = None) -> datetime.datetime:
        return cls(2027, 1, 1, 12, tzinfo=zone)


def test_programs_that_start_in_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    """Each looks whether there is a folder before the other has made it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "datetime", types.SimpleNamespace(datetime=Noon, UTC=datetime.UTC))
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.parent.name != "runs" and exists(path))
    runs = [Run.create(None, "train-digits", (), overwrite=False, resume=False) for _ in range(3)]
    assert [run.folder.name for run in runs] == [f"train-digits-20270101-120000{end}" for end in ("", "-2", "-3")]


def test_what_is_advised_where_a_run_cannot_be_written(tmp_path, monkeypatch):
    """`tna resume` needs the configuration: before it is written there is nothing to resume."""

    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with Run.create(str(tmp_path / "run"), "lmc", (), overwrite=False, resume=False) as run:
        for before, advice in ((False, "the same command again"), (True, f"tna resume {run.folder}")):
            if before:
                run.write(CONFIG, {"program": "lmc"})
            with monkeypatch.context() as patch:
                patch.setattr(folders, "write_json", full)
                with pytest.raises(UsageError, match=f"No space left on device; .*, then: {advice}$"):
                    run.write(PROVENANCE, {})

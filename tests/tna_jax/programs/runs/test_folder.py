"""Run folders that are made, replaced and refused: nothing of an older run is taken for the new one's, whatever stops the program."""

import datetime
import errno
import os
import shutil
import types
from pathlib import Path

import pytest

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json, write_json
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


def test_results_of_a_run_that_was_replaced_meanwhile_do_not_become_the_new_ones(old, tmp_path):
    """`tna barrier` reads for minutes, and locks nothing: the run may go on meanwhile, and several programs may look at it."""
    opened = Run.open(str(old))
    opened.write("barrier.json", {"of": "the old run"})
    with replaced(old) as new:
        new.write(PROVENANCE, {"program": "lmc", "started": "later"})
        new.write(CONFIG, {"program": "lmc"})
    said = rf"^{old} is not the run any more that was read: .*; the results .* are in {old}-before%s.fuse.json: tna report {old}-before%s.fuse.json$"
    for number in ("", "2"):
        with pytest.raises(UsageError, match=said % (number, number)):
            opened.write("fuse.json", {"number": number})
        assert read_json(tmp_path / f"run-before{number}.fuse.json") == {"number": number}
    with pytest.raises(UsageError, match="replaced or removed meanwhile"), opened.drawing("fuse.png"):
        raise AssertionError("drawn")
    assert sorted(path.name for path in old.iterdir() if not path.name.startswith(".")) == [CONFIG, PROVENANCE]
    Run.open(str(old)).write("barrier.json", {})


def test_a_run_that_is_replaced_while_its_results_are_written(old, tmp_path, monkeypatch):
    """In whichever moment: what was written last goes with the old run."""
    write_json, removed = folders.write_json, []

    def slowly(path, value):
        write_json(path, value)
        write_json(old / PROVENANCE, {"started": "later"})

    opened = Run.open(str(old))
    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_json", slowly)
        with pytest.raises(UsageError, match="run-before.barrier.json"):
            opened.write("barrier.json", {})
    assert not (old / "barrier.json").exists() and (tmp_path / "run-before.barrier.json").is_file()

    def draw(opened: Run) -> None:
        with opened.drawing("barrier.png") as file:
            file.touch()
            write_json(old / PROVENANCE, {"started": "later still"})

    with pytest.raises(UsageError, match="is not the run any more"):
        draw(Run.open(str(old)))
    assert not (old / "barrier.png").exists()

    def late(path):
        removed.append(path.name)
        if path.name == PROVENANCE:
            write_json(old / "fuse.json", {})
        folder_remove(path)

    folder_remove = folders._remove
    monkeypatch.setattr(folders, "_remove", late)
    replaced(old).__exit__()
    assert PROVENANCE in removed and not (old / "fuse.json").exists()


def test_a_run_that_goes_on_or_lost_its_provenance_is_the_same(old):
    (old / PROVENANCE).unlink()
    opened = Run.open(str(old))
    with Run.create(str(old), "lmc", (), overwrite=False, resume=True) as resumed:
        resumed.write(PROVENANCE, {"started": "when it was resumed"})
        resumed.write_plan([{"seed": 0}], 1)
    opened.write("barrier.json", {})
    assert (old / "barrier.json").is_file()
    shutil.rmtree(old)
    with pytest.raises(UsageError, match="replaced or removed"):
        opened.require_same()

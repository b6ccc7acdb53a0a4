"""The lock of a run folder: one program at a time, whoever it is is named, and looking at it leaves no trace."""

import errno
import os
import platform
import subprocess
import sys

import filelock
import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.runs import lock


def test_one_at_a_time_and_the_holder_is_named(tmp_path):
    first = lock.Lock(tmp_path)
    assert lock.held(tmp_path)
    with pytest.raises(UsageError, match=f"is in use by process {os.getpid()} on {platform.node()}; wait for it"):
        lock.Lock(tmp_path)
    assert lock.held(tmp_path)  # the refused one took nothing away
    first.release()
    assert not lock.held(tmp_path)
    lock.Lock(tmp_path).release()


def test_looking_at_a_folder_writes_nothing(tmp_path):
    assert not lock.held(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def refused(*args, **kwargs):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    lock.Lock(tmp_path).release()
    assert f"cannot be locked ({os.strerror(errno.ENOLCK)})" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_written_to_is_not_used(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    with pytest.raises(PermissionError):
        lock.Lock(tmp_path)


def test_a_run_that_may_only_be_read_is_held_while_the_process_that_it_names_lives(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / lock.LOCK).touch()
    assert not lock.held(tmp_path)
    for owner, alive in [
        (f"process {os.getpid()} on {platform.node()}", True),
        (f"process {gone.pid} on {platform.node()}", False),
        (f"process {gone.pid} on another-machine", True),
    ]:
        (tmp_path / lock.OWNER).write_text(owner)
        assert lock.held(tmp_path) is alive, owner

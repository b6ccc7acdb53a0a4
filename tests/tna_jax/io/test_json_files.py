"""Files are replaced whole; what is no file is written to."""

import errno
import os
import stat
import threading

import pytest

from tna_jax.io.json_files import atomic_file, write_atomic


def test_a_pipe_is_written_to_and_stays(tmp_path):
    """A run as root with `/dev/null` as its file would take the machine's device away otherwise."""
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomic(pipe, b"text")
    reader.join(timeout=10)
    assert received == [b"text"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    file = tmp_path / "file"
    write_atomic(file, b"old")

    def fail():
        with atomic_file(file) as unfinished:
            unfinished.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not os.path.exists("/proc"), reason="limits of Linux")
def test_a_write_without_room_names_the_file_that_was_to_be_written(tmp_path):
    """Writes to a file that is open say no name: `cannot write a file` helps nobody."""
    resource = pytest.importorskip("resource")
    file = tmp_path / "file"
    write_atomic(file, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write_atomic(file, b"0" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (raised.value.filename, raised.value.errno) == (str(file), errno.EFBIG)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]

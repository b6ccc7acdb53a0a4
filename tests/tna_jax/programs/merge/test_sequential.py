"""Files are read in order, with the system told so where it listens."""

import os

import pytest

from tna_jax.programs.merge.sequential import open_sequential


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system without advice")
def test_the_system_is_told_that_a_file_is_read_in_order(tmp_path, monkeypatch):
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *advice: advised.append((descriptor, *advice)))
    (tmp_path / "x").write_bytes(b"abc")
    with open_sequential(tmp_path / "x") as opened:
        assert advised == [(opened.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)]  # of the whole file


def test_a_system_without_advice_reads_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    (tmp_path / "x").write_bytes(b"abc")
    with open_sequential(tmp_path / "x") as opened:
        assert opened.read() == b"abc"

"""Where a run's code came from is looked up without touching the user's checkout."""

import os
import subprocess

from tna_jax.io import provenance


def test_looking_at_a_checkout_writes_nothing_into_it(tmp_path, monkeypatch):
    """`git status` would write the index anew and lock it for that, against the user's own git."""
    code = tmp_path / "tna_jax" / "io" / "provenance.py"
    code.parent.mkdir(parents=True)
    code.write_text("")

    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    os.utime(code, (2e9, 2e9))  # the index no longer knows it by its time
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    monkeypatch.setattr(provenance, "__file__", str(code))
    assert len(provenance.commit()) == 40
    assert index.read_bytes() == before
    git("status")
    assert index.read_bytes() != before  # as it is otherwise

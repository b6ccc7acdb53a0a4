"""A job that a process cannot join is one line that says what to do."""

import types

import jax
import pytest

from tna_jax.io.errors import UsageError
from tna_jax.programs.system import distributed


@pytest.mark.parametrize(
    ("coordinator", "error", "line"),
    [
        (None, ValueError("coordinator_address should be defined."), r"--distributed: no cluster .* --coordinator HOST:PORT"),
        ("there:1", RuntimeError("DEADLINE\n  EXCEEDED"), r"--coordinator there:1: .* \(DEADLINE EXCEEDED\)"),
    ],
)  # fmt: skip
def test_it_says_so(coordinator, error, line, monkeypatch):
    def initialize(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    settings = types.SimpleNamespace(coordinator=coordinator, num_processes=2, process_id=1, distributed=True)
    with pytest.raises(UsageError, match=line):
        distributed._join(settings)

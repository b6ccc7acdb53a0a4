"""Readers under mutated files: each is read, or refused with one line; no crash, no hang, no memory far beyond the file."""

import json
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tna_jax.io import manifest
from tna_jax.io import safetensors as safetensors_io
from tna_jax.io.errors import UsageError
from tna_jax.io.manifest import Damaged
from tna_jax.io.restore import MANIFEST, contents
from tna_jax.programs.cli import parsing
from tna_jax.programs.list_runs import run as runs
from tna_jax.programs.resume.run import command
from tna_jax.programs.runs.folder import CONFIG, PLAN, Run
from tna_jax.programs.runs.imported import read_exported
from tna_jax.programs.train.options import TrainOptions

FLOOR = 2**20
"""Bytes that a reader may take whatever the size of the file."""


def safetensors(folder: Path) -> bytes:
    about = {"format": 1, "config": {"model": "mlp", "width": 8}, "model": {"seed": 0}, "mask": {}, "checkpoint": 1}
    arrays = {f"params/Dense_{i}/kernel": np.arange(40, dtype=np.float32).reshape(5, 8) for i in range(4)}
    safetensors_io.write(folder / "sound", arrays, {"tna_jax": json.dumps(about)})
    return (folder / "sound").read_bytes()


def read_safetensors(file: Path) -> None:
    read_exported(str(file))


def a_config(folder: Path) -> bytes:
    return json.dumps(
        {"format": 1, "program": "train", "started_with": {"data_dir": None}, "epochs": 3, "width": 8}
    ).encode()


def read_config(file: Path) -> None:
    file.replace(file.parent / CONFIG)
    state = runs.describe(file.parent)["state"]
    assert state.startswith(("unreadable: ", "interrupted, ", "running, "))
    command(str(file.parent), [])
    parsing.parse(TrainOptions, ["--config", str(file.parent / CONFIG)], "train")


def a_plan(folder: Path) -> bytes:
    model = {"seed": 0, "ratio": 0.4, "method": "tna", "start": 0, "order": 1}
    return json.dumps({"format": 1, "models": [model] * 3, "at_once": 3}).encode()


def read_plan(file: Path) -> None:
    file.replace(file.parent / PLAN)
    Run(file.parent).plan()


def a_log(folder: Path) -> bytes:
    return b"".join(json.dumps({"step": i, "loss": 0.5, "diverged": []}).encode() + b"\n" for i in range(30))


def read_log(file: Path) -> None:
    file.replace(file.parent / "metrics.jsonl")
    Run(file.parent).keep_logged(20)


def a_manifest(folder: Path) -> bytes:
    return json.dumps(manifest.describe({f"params/{i}": np.zeros(i, np.float32) for i in range(9)})).encode()


def read_manifest(file: Path) -> None:
    place = file.parent / "7" / MANIFEST
    place.parent.mkdir(parents=True, exist_ok=True)
    file.replace(place)
    contents(file.parent, 7)


READERS = [(safetensors, read_safetensors), (a_config, read_config), (a_plan, read_plan), (a_log, read_log),
           (a_manifest, read_manifest)]  # fmt: skip

mutations = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "copy", "digit", "set"]), st.floats(0, 1, exclude_max=True), st.binary(max_size=9)),
    min_size=1, max_size=4,
)  # fmt: skip
ODD = [
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"true",
    b"NaN",
    b"[[[[[[[[",
    b'"format": 9, ',
]


def mutated(data: bytes, how: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, more in how:
        place = int(where * max(len(data), 1))
        if kind == "flip" and data:
            data = data[:place] + bytes([data[place] ^ (1 << (len(more) % 8))]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "insert":
            data = data[:place] + more + data[place:]
        elif kind == "copy":
            data = data[:place] + data[place : place + 40] + data[place:]
        elif kind == "digit":  # a number or a value becomes an odd one
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
            at = digits[int(where * len(digits))] if digits else 0
            data = data[:at] + ODD[sum(more) % len(ODD)] + data[at + 1 :]
        else:
            data = data[:place] + more + data[place + len(more) :]
    return data


def check(make, read, folder: Path, examples: int) -> None:
    sound = make(folder)
    (folder / "sound").unlink(missing_ok=True)
    counts = {"read": 0, "refused": 0, "lines": 0}

    def one(how) -> None:
        data = mutated(sound, how)
        started = time.monotonic()
        took, error = reading(data)
        assert time.monotonic() - started < 5
        counts["read" if error is None else "refused"] += 1
        counts["lines"] = max(counts["lines"], str(error or "").count("\n") + 1)
        if took >= 4 * len(data) + FLOOR:  # what was loaded for good, a module say, is not taken again
            took, _ = reading(data)
        assert took < 4 * len(data) + FLOOR

    def reading(data: bytes) -> tuple[int, Exception | None]:
        """Bytes taken at most, and the refusal; `read` may move its file."""
        file = folder / "file"
        file.write_bytes(data)
        tracemalloc.reset_peak()
        before, refusal = tracemalloc.get_traced_memory()[0], None
        try:
            read(file)
        except (UsageError, Damaged) as error:
            refusal = error
        return tracemalloc.get_traced_memory()[1] - before, refusal

    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            settings(
                max_examples=examples,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )(given(mutations)(one))()
    finally:
        tracemalloc.stop()
    assert counts["read"] + counts["refused"] >= examples
    assert counts["lines"] == 1 or read is read_log  # of a log, lines that cannot be read are dropped
    assert counts["refused"] > examples / 10 or read is read_log


@pytest.mark.parametrize(("make", "read"), READERS)
def test_mutated_files(make, read, tmp_path):
    check(make, read, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize(("make", "read"), READERS)
def test_ten_thousand_mutated_files(make, read, tmp_path):
    check(make, read, tmp_path, 2000)

"""Two processes with four CPU devices each give the numbers of one process with eight; only the first speaks."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
COMMAND = [sys.executable, "-m", "tna_jax"]
SMALL = ["lmc", "--width", "8", "--depth", "1", "--seeds", "1", "--ratios", "0", ".5", "--epochs", "2", "--alphas", "3"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(folder: Path, *words: str) -> list[subprocess.CompletedProcess]:
    """The same command as process 0 and 1 of two."""
    address = f"127.0.0.1:{free_port()}"
    started = [
        subprocess.Popen(
            [
                *COMMAND,
                *words,
                "--cpu-devices",
                "4",
                "--coordinator",
                address,
                "--num-processes",
                "2",
                "--process-id",
                str(i),
            ],
            cwd=folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    done = [process.communicate(timeout=150) for process in started]
    return [subprocess.CompletedProcess(p.args, p.returncode, *o) for p, o in zip(started, done, strict=True)]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def said(process: subprocess.CompletedProcess) -> list[str]:
    """What it printed, but for the lines of the communication library, whose threads may tear each other's."""
    printed = (process.stdout + process.stderr).splitlines()
    return [
        line for line in printed if line.strip(" .:0123456789") and "[Gloo]" not in line and " peer ranks" not in line
    ]


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["map", "loop"])
def test_two_processes_equal_one(tmp_path, placement):
    first, second = together(tmp_path, *SMALL, "--placement", placement, "--out", "two")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert said(second) == []
    assert "wrote two" in first.stdout
    one = subprocess.run(
        [*COMMAND, *SMALL, "--placement", placement, "--cpu-devices", "8", "--out", "one"],
        cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=True, timeout=150,
    )  # fmt: skip
    results = [json.loads((tmp_path / run / "lmc.json").read_text()) for run in ("one", "two")]
    assert results[0]["rows"] == results[1]["rows"]
    assert results[1]["provenance"]["device"]["processes"] == 2
    assert results[1]["provenance"]["device"]["count"] == 8
    assert one.returncode == 0


@pytest.mark.slow
def test_a_refusal_reaches_every_process(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    first, second = together(tmp_path, *SMALL, "--out", "taken")
    assert (first.returncode, second.returncode) == (2, 2)
    assert said(first)[-1].startswith("tna lmc: --out taken exists and is not a run folder")
    assert said(second) == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_of_two_is_killed_the_other_ends_and_the_pair_resumes(tmp_path, victim):
    words = ["train", "--width", "8", "--depth", "1", "--members", "4", "--checkpoint-every", "5"]
    address = f"127.0.0.1:{free_port()}"
    pair = ["--coordinator", address, "--num-processes", "2", "--cpu-devices", "1", "--process-id"]
    started = [
        subprocess.Popen(
            [*COMMAND, *words, "--epochs", "300", "--out", "run", *pair, str(i)],
            cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in (0, 1)
    ]  # fmt: skip
    log = tmp_path / "run" / "metrics.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 12):
        assert started[0].poll() is None and started[1].poll() is None
        time.sleep(0.02)
    started[victim].kill()
    killed = time.monotonic()
    _, told = started[1 - victim].communicate(timeout=120)
    assert time.monotonic() - killed < 10  # on the CPU, where a lost connection is noticed at once
    assert started[1 - victim].returncode not in (0, None)
    assert "another process of this job is gone" in told or "another task died" in told, told
    started[victim].communicate()
    resumed = together(tmp_path, "resume", "run")
    assert [done.returncode for done in resumed] == [0, 0], resumed
    assert together(tmp_path, *words, "--epochs", "300", "--out", "whole")[0].returncode == 0
    cut, whole = (json.loads((tmp_path / run / "train.json").read_text())["models"] for run in ("run", "whole"))
    assert cut == whole

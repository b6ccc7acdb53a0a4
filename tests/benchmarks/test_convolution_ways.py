"""`python -m benchmarks.convolution_ways parts` writes its file itself: a row for each environment, those that failed apart."""

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from benchmarks import convolution_ways, timing
from tna_jax import backend

ROOT = Path(__file__).resolve().parents[2]
HERE = f"jaxlib {jax.__version__.rpartition('.')[0]}"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Where results go, instead of the committed ones."""
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.chdir(ROOT)  # the processes import benchmarks from there
    return tmp_path / "convolution_parts.json"


def test_every_environment_is_a_row_with_its_kernels_and_failures_stand_apart(written, monkeypatch):
    asked = {}

    @contextlib.contextmanager
    def workers(cores, chosen):
        ((name, row),) = chosen.items()
        asked[name] = (cores, *row)
        facts = (
            {"error": "no such file"}
            if row[0] == "/gone"
            else {"version": "1", "gflops": {"product": {}}, "losses": {}}
        )
        yield {name: SimpleNamespace(facts=facts)}

    monkeypatch.setattr(convolution_ways, "workers", workers)
    monkeypatch.setenv("JAXLIBS", "0.99:/gone")
    monkeypatch.setenv("TORCH", "/torch")
    monkeypatch.setattr(sys, "argv", ["convolution_ways", "parts", "3"])
    convolution_ways.main()
    result = json.loads(written.read_text())
    kernels = ", YNN's kernels"
    assert asked == {
        HERE: ([3], sys.executable, ["parts"], backend.YNN_OFF),
        HERE + kernels: ([3], sys.executable, ["parts"], ""),
        "jaxlib 0.99": ([3], "/gone", ["parts"], backend.YNN_OFF),
        "jaxlib 0.99" + kernels: ([3], "/gone", ["parts"], ""),
        "PyTorch": ([3], "/torch", ["torch"], ""),
    }
    assert list(result["rows"]) == [HERE, HERE + kernels, "PyTorch"]
    assert set(result["rows"]["PyTorch"]) == {"version", "gflops"}
    assert set(result["failed"]) == {"jaxlib 0.99", "jaxlib 0.99" + kernels}


@pytest.mark.slow
@pytest.mark.cpu_only("the kernels of one processor are timed")
def test_a_tiny_batch_is_timed_in_processes_of_its_own(written, monkeypatch):
    for name, value in {"TNA_BENCH_BATCH": "1", "JAXLIBS": "", "TORCH": ""}.items():
        monkeypatch.setenv(name, value)
    convolution_ways.parts(0)
    committed = json.loads((ROOT / "benchmarks" / "results" / "convolution_parts.json").read_text())
    result = json.loads(written.read_text())
    assert list(result["rows"]) == [HERE, HERE + ", YNN's kernels"] and result["failed"] == {}
    for row in result["rows"].values():
        like = committed["rows"]["jaxlib 0.10"]["gflops"]
        assert {part: set(values) for part, values in row["gflops"].items()} == {
            part: set(values) for part, values in like.items()
        }
        assert all(value > 0 for values in row["gflops"].values() for value in values.values())

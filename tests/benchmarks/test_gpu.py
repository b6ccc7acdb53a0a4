"""The benchmark for GPUs runs, at tiny sizes, on CPUs: nobody finds a mistake in it while a card is lent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("section", ["ways", "mlp", "path", "convolutions", "instructions"])
def test_each_section_of_the_gpu_benchmark_runs_on_a_cpu(section, tmp_path):
    if section in ("mlp", "convolutions"):
        pytest.importorskip("torch", reason="compares with PyTorch")
    output = tmp_path / "gpu.json"
    words = [sys.executable, "-m", "benchmarks.gpu", "--smoke", "--sections", section, "--output", str(output)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(output.read_text())["sections"][section]
    assert cases and all(cases.values())
    assert done.stdout.rstrip().endswith("0 failed")

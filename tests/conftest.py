"""Strict settings for every test: eight CPU devices, strict dtype promotion, no silent rank promotion, warnings as errors."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("COLUMNS", None)  # tables as wide as a pipe takes them, whatever the terminal
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tna-test-cache-")  # compiled programs of this test process
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import pytest

from tna_jax import backend

FASTER_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false"
"""Jaxlib 0.10's other way to make code: a third less time to compile, slower to run. `make test-slow` does without it."""
if "XLA_FLAGS" not in os.environ and jax.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = FASTER_TO_COMPILE
backend.configure(cpu_devices=8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # brings the backend up, so that no program under test changes the number of devices


@pytest.fixture(autouse=True)
def runs_stay_in_a_temporary_folder(tmp_path, monkeypatch):
    """Programs write their runs where they are started."""
    monkeypatch.chdir(tmp_path)

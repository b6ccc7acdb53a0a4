"""Strict settings for every test: eight CPU devices, strict dtype promotion, no silent rank promotion, warnings as errors."""

import atexit
import os
import shutil
import tempfile

flags = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_experimental_ynn_fusion_type=".strip()  # see train/hosts.py
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["MPLBACKEND"] = "Agg"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="tna-test-cache-")  # compiled programs of this test run
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.devices()  # brings the backend up, so that no program under test changes the number of devices


@pytest.fixture(autouse=True)
def runs_stay_in_a_temporary_folder(tmp_path, monkeypatch):
    """Programs write their runs where they are started."""
    monkeypatch.chdir(tmp_path)

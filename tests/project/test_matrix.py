"""Both ends of what is supported: the oldest versions on Python 3.11, the newest on 3.13, each in an environment of its own.

`make matrix` runs all tests of the library there; this takes the ones at the heart of it, and the main job.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.project.first_run import first_run
from tests.xla_flags import environment_of_a_user

ROOT = Path(__file__).resolve().parents[2]
ENDS = {"oldest": "3.11", "newest": "3.13"}
HEART = ["transform", "masks", "frameworks", "averaging"]


def interpreter(version: str) -> str | None:
    """A Python of that version that starts (a shim of a version manager may not)."""
    candidates = [
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")),
    ]
    for found in filter(None, candidates):
        if subprocess.run([found, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return found
    return None


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("end", ENDS)
def test_the_heart_of_the_library_and_the_main_job_run(end, tmp_path):
    python = interpreter(ENDS[end])
    if python is None:
        pytest.skip(f"no Python {ENDS[end]} here")
    folder = tmp_path / "environment"
    environment = environment_of_a_user()
    make = ["make", "-C", str(ROOT), f"VENV={folder}", f"PYTHON={python}", f"CONSTRAINTS=constraints-{end}.txt"]
    done = subprocess.run([*make, f"{folder}/.installed-matrix"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tests = [f"tests/tna_jax/test_{name}.py" for name in HEART]
    words = [f"{folder}/bin/python", "-m", "pytest", "-n", "2", "-m", "not slow", *tests]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    first_run(f"{folder}/bin/tna", tmp_path, environment)

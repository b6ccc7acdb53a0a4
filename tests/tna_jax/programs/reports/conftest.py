"""A run with every kind of result, made once for all workers."""

import shutil
from pathlib import Path

import pytest

from tests.tna_jax.programs.reports.random_results import write_searches
from tna_jax.programs.cli.main import main


@pytest.fixture(scope="module")
def trained(unaligned, once, tmp_path_factory) -> Path:
    """A run with every kind of result that models of a run can have."""

    def make() -> None:
        run = str(shutil.copytree(unaligned, "reported/unaligned"))
        for words in (["barrier", run, "--alphas", "3"], ["landscape", run, "--points", "3"]):
            assert main(words) == 0
        write_searches(Path(run))

    return Path(
        shutil.copytree(once("reported", make) / "unaligned", tmp_path_factory.mktemp("reported") / "unaligned")
    )

"""What users import of `tna_jax.io` and `tna_jax.hf`: all of it is there, documented, and loaded when it is used."""

import subprocess
import sys

import pytest

from tna_jax import hf, io

WITHOUT_JAX = """
import sys
import tna_jax.io, tna_jax.hf
from tna_jax.io import UsageError, open_run
from tna_jax.io import errors, formats, json_files, manifest, restore, run_folder, tensor_headers
heavy = sorted({"jax", "flax", "optax", "orbax", "tokenizers"} & set(sys.modules))
assert not heavy, heavy
assert not hasattr(tna_jax.io, "nonsense") and not hasattr(tna_jax.hf, "nonsense")
"""


def test_importing_them_costs_no_jax():
    subprocess.run([sys.executable, "-c", WITHOUT_JAX], check=True)


@pytest.mark.parametrize("package", [io, hf], ids=["io", "hf"])
def test_every_public_name_is_there_and_documented(package):
    for name in package.__all__:
        assert getattr(package, name).__doc__, name
        assert name in dir(package)


def test_a_name_that_is_not_there_is_an_attribute_error():
    for package in (io, hf):
        with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'"):
            package.nonsense  # noqa: B018

"""`import tna_jax` is cheap: names and modules are loaded at their first use."""

import pkgutil
import subprocess
import sys

import pytest

import tna_jax

EDGES = {"__main__", "backend", "flower", "hf", "io", "programs", "version"}
"""What is imported by its own name only."""


PROGRAM = """
import sys
import tna_jax
def heavy(): return [name for name in ("jax", "numpy", "flax", "optax") if name in sys.modules]
assert tna_jax.__version__ and dir(tna_jax)
print(heavy())
from tna_jax import masks, tna_mask
print(masks.__name__, tna_mask.__module__, tna_jax.matching.__name__)
from tna_jax import *
print(line is tna_jax.interpolation.line)
print(heavy())
import tna_jax.programs.lmc.run
from tna_jax.programs.data import digits
digits.load()
print([name for name in ("sklearn", "scipy.optimize", "flax.nnx", "orbax.checkpoint") if name in sys.modules], "flax.linen" in sys.modules)
"""


def test_the_package_alone_imports_no_jax():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    alone, names, star, after, program = done.stdout.splitlines()
    assert alone == "[]"
    assert names == "tna_jax.masks tna_jax.transform tna_jax.matching"
    assert star == "True"
    assert "jax" in after  # the control: this is how it is seen
    assert (
        program == "[] True"
    )  # what `tna lmc` does not need before its first epoch: each takes as long to import as JAX


@pytest.mark.parametrize("name", tna_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tna_jax, name) is not None
    assert name in dir(tna_jax)


def test_every_module_of_the_core_is_an_attribute():
    modules = {module.name for module in pkgutil.iter_modules(tna_jax.__path__)} - EDGES
    assert modules == tna_jax._MODULES
    assert all(getattr(tna_jax, name).__name__ == f"tna_jax.{name}" for name in modules)
    assert modules < set(dir(tna_jax))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tna_jax' has no attribute 'nonsense'"):
        tna_jax.nonsense  # noqa: B018
    with pytest.raises(ImportError, match="nonsense"):
        from tna_jax import nonsense  # noqa: F401

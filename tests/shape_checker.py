"""The shapes and dtypes in the annotations of the core, checked at every call (jaxtyping, beartype).

`TNA_JAXTYPING=1 python -m pytest tests/tna_jax/test_averaging.py` runs any tests so; `tests/tna_jax/test_shapes.py` does it for calls of
each module, on fresh copies of them. A module is checked by being listed here.
"""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Iterator

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype

MODULES = (
    "tna_jax.alphas", "tna_jax.augment", "tna_jax.averaging", "tna_jax.barriers", "tna_jax.checks",
    "tna_jax.cold_fusion", "tna_jax.connectivity", "tna_jax.corruptions", "tna_jax.ensemble", "tna_jax.federated",
    "tna_jax.finetuning", "tna_jax.interpolation", "tna_jax.labels", "tna_jax.linear_probe", "tna_jax.masked_lm",
    "tna_jax.masks", "tna_jax.matching", "tna_jax.merging", "tna_jax.metrics", "tna_jax.networks",
    "tna_jax.objectives", "tna_jax.placement", "tna_jax.prng", "tna_jax.repair", "tna_jax.transform",
)  # fmt: skip
CHECKER = "tests.shape_checker.check"
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""An int will do where a float is asked for."""
EVERYWHERE = os.environ.get("TNA_JAXTYPING", "0") != "0"
"""Whether this process checks the modules under all tests; `install` must run before they are imported."""


def install() -> None:
    """Checks the modules from their import on, where the environment asks for it."""
    if EVERYWHERE:
        jaxtyping.install_import_hook(MODULES, CHECKER)


@contextlib.contextmanager
def checked_copies() -> Iterator[None]:
    """Inside, `import` gives fresh copies of tna_jax whose listed modules are checked; outside, all is as it was."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tna_jax"}
    for name in ours:
        del sys.modules[name]
    try:
        with jaxtyping.install_import_hook(MODULES, CHECKER):
            for name in MODULES:
                importlib.import_module(name)
            yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tna_jax"]:
            del sys.modules[name]
        sys.modules.update(ours)


class RefusedByShape:
    """A plugin: tests of what the library refuses are skipped where the checker refuses it first, with its own error."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        try:
            return (yield)
        except jaxtyping.TypeCheckError:
            if "pytest.raises" in inspect.getsource(item.function):
                pytest.skip("the checker refuses it first")
            raise

"""XLA's flags in tests: those that a user gave stay, and the programs that tests start have them too."""

import os

import jax
import pytest

GIVEN = "TNA_TESTS_XLA_FLAGS"
"""The variable that keeps what XLA_FLAGS was when pytest started, for programs under another JAX."""

QUICK = ["--xla_backend_optimization_level=0"]
"""LLVM's passes left out: half the time of the suite. Products and sums are those of the processor all the same."""
if jax.__version_info__ < (0, 11):
    QUICK.append("--xla_cpu_use_fusion_emitters=false")  # jaxlib 0.10's other way to make code: a third less to compile


def append_flags(*flags: str) -> None:
    """Adds `flags` to XLA_FLAGS but for those that have a value there."""
    given = os.environ.get("XLA_FLAGS", "")
    os.environ.setdefault(GIVEN, given)
    names = {flag.partition("=")[0] for flag in given.split()}
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *(f for f in flags if f.partition("=")[0] not in names)])


LACKS_FLOAT16 = "--xla_cpu_max_isa=SSE4_2" in os.environ.get("XLA_FLAGS", "").split()
WHY = "jaxlib (0.10 to 0.12) cannot compile float16 for SSE 4.2: Failed to materialize symbols"
NO_FLOAT16 = pytest.mark.skipif(LACKS_FLOAT16, reason=WHY)
"""The mark of tests that compute in float16."""


def require(dtype: str) -> None:
    """Skips a test whose parameter is a dtype that cannot be computed in here."""
    if LACKS_FLOAT16 and dtype == "float16":
        pytest.skip(WHY)


def environment_of_a_user(**more: str) -> dict[str, str]:
    """This process's environment without what the tests put into it: the flags are those that pytest was started with."""
    ours = ("PYTHONPATH", "MAKEFLAGS", GIVEN)
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("PYTEST_")}
    return {**kept, "XLA_FLAGS": os.environ.get(GIVEN, os.environ.get("XLA_FLAGS", "")), **more}

"""The examples in docstrings do what they show, with the strict dtypes of the tests; every public example is found."""

import contextlib
import doctest
import importlib
import io
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in (ROOT / "tna_jax").rglob("*.py")
    if ">>> " in file.read_text()
)


def failures(module) -> str:
    """What the examples of a module print where it is not what they show; empty if all is well."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
        for test in tests:
            runner.run(test)
    assert tests, f"{module.__name__} has examples that doctest does not find"
    return report.getvalue() if runner.failures else ""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    assert not (report := failures(importlib.import_module(name))), report


def test_a_wrong_example_would_be_seen():
    module = type(doctest)("wrong", "Says.\n\n>>> 1 + 1\n3\n")
    assert "Expected:\n    3\nGot:\n    2" in failures(module)

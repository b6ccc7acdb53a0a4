"""Every public name of the library is documented, and the documentation names what exists."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs" / "hooks"))
reference = importlib.import_module("reference")
SECTION = re.compile(r"^(Args|Returns|Raises|Warns|Example|Examples|Attributes|Laws?|Note):\s*$")


def functions() -> list[tuple[str, object]]:
    found = []
    for module in reference.modules():
        loaded = importlib.import_module(module)
        for name in reference.public(module):
            value = getattr(loaded, name)
            if inspect.isfunction(value):
                found.append((f"{module}.{name}", value))
    return found


FUNCTIONS = functions()


def named_arguments(doc: str) -> list[str]:
    """The names in the section `Args:`; several may share a line, `a, b: ...` or `x: ...; y: ...`."""
    lines = inspect.cleandoc(doc).splitlines()
    if "Args:" not in lines:
        return []
    names: list[str] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if SECTION.match(line):
            break
        if match := re.match(r"^  ((?:\*{0,2}\w+, )*\*{0,2}\w+):", line):
            names += [name.strip("* ") for name in match.group(1).split(",")]
    return names


@pytest.mark.parametrize("module", reference.modules())
def test_modules_and_classes_are_explained(module):
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in reference.public(module):
        value = getattr(loaded, name)
        if inspect.isclass(value):
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), f"{name}: only what dataclass or NamedTuple writes"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_functions_are_explained(name, function):
    doc = inspect.getdoc(function) or ""
    assert len(doc.split()) >= 3, "no docstring"
    parameters = list(inspect.signature(function).parameters)
    unknown = set(named_arguments(doc)) - set(parameters)
    assert not unknown, f"not in the signature: {unknown}"


def test_an_unexplained_argument_would_be_seen():
    assert named_arguments("Does.\n\nArgs:\n  a, b: two.\n  *rest: more.\n\nReturns:\n  c: not one.") == [
        "a",
        "b",
        "rest",
    ]


NOT_OURS = (("pretrained.md", "vit"), ("pretrained.md", "transformer"), ("bring-your-own.md", "path"))
"""Names of tensors in files, and of a variable."""


def test_names_in_backticks_exist():
    """`masks.soft` and the like, in any page."""
    wrong = []
    modules = {module.split(".")[-1]: module for module in reference.modules()}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for module, name in re.findall(r"`(?:tna_jax\.)?(\w+)\.(\w+)(?:\([^`]*\))?`", page.read_text()):
            if (
                module in modules
                and (page.name, module) not in NOT_OURS
                and name not in ("py", "json", "jsonl", "png")
                and not hasattr(importlib.import_module(modules[module]), name)
            ):
                wrong.append(f"{page.name}: {module}.{name}")
    assert not wrong

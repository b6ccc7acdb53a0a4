"""The README tells the truth: its Python runs, its tables are those of the committed results, its commands exist."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.readme_tables import PAGES, rendered

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_optax_example_runs_and_keeps_its_promise():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    values: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(compile(code, "README.md", "exec"), values)
    start = {"kernel": jax.random.normal(jax.random.key(0), (8, 4)), "bias": np.zeros(4, np.float32)}
    for name, mask in values["mask"]["dense"].items():
        old, new, mask = (np.asarray(x) for x in (start[name], values["params"]["dense"][name], mask))
        assert old[~mask].tobytes() == new[~mask].tobytes()
        assert (old[mask] != new[mask]).all()


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_are_those_of_the_committed_results(page):
    text = (ROOT / page).read_text()
    assert rendered(text) == text
    assert "| --- |" in text


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))])
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", README, re.MULTILINE))
def test_the_commands_are_in_the_makefile(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)

"""README and docs tell the truth: README's Python keeps its promise, tables are those of the committed results, links lead somewhere."""

import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from fusion.readme_tables import PAGES, rendered

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
sys.path.append(str(ROOT / "docs" / "hooks"))


def test_the_optax_example_keeps_its_promise():
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


PROSE = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("page", PROSE)
def test_links_to_files_lead_somewhere(page):
    made = {"docs/commands.md", "docs/reference/index.md"}
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            place = ((ROOT / page).parent / target).resolve()
            assert place.exists() or str(place.relative_to(ROOT)) in made, target

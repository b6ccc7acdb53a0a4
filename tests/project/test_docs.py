"""The documentation site: it builds without a warning, holds every public name, needs no network, and can be searched from a file."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs" / "hooks"))


@pytest.fixture(scope="module")
def reference():
    """The hook that writes the reference; it imports MkDocs."""
    return importlib.import_module("reference")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built as `make docs` builds it; sockets of other machines are out of reach."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml"),
             "--site-dir", str(folder)]  # fmt: skip
    unreachable = "http://127.0.0.1:9"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "HTTP_PROXY": unreachable, "HTTPS_PROXY": unreachable}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_has_a_place(reference, site):
    missing = []
    for module in reference.modules():
        page = (site / reference.place(module)).with_suffix(".html").read_text()
        missing += [name for name in reference.public(module) if f'id="{module}.{name}"' not in page]
    assert not missing


@pytest.mark.slow
def test_the_names_one_starts_with_are_listed(site):
    import tna_jax

    page = (site / "reference/index.html").read_text()
    assert all(f">{name}</code>" in page for name in tna_jax.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tna_jax.masks", "tna_jax.io", "tna_jax.hf", "tna_jax.federated"])
def test_what_a_package_offers_leads_to_where_it_is_explained(reference, site, module):
    page = (site / reference.place(module)).with_suffix(".html").read_text()
    homes = reference.exported(module)
    assert homes
    for name, home in homes.items():
        assert re.search(rf'href="[^"]*#{re.escape(home)}"[^>]*><code>{name}</code>', page), name


@pytest.mark.slow
def test_nothing_is_fetched_from_the_network(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(?:https?:)?//[^\">]*|<link\b[^>]*href=\"?https?://[^\">]*",
            page.read_text(),
        )
        assert not [link for link in fetched if "canonical" not in link], page.name


@pytest.mark.slow
def test_formulas_are_mathml(site):
    page = (site / "theorem.html").read_text()
    assert page.count("<math") > 50
    assert "arithmatex" not in page
    assert "$$" not in page


@pytest.mark.slow
def test_every_experiment_and_its_figure_are_shown(site):
    pages = "".join(page.read_text() for page in site.glob("*.html"))
    for figure in [*ROOT.glob("train/results/*.png"), *ROOT.glob("fusion/results/*.png")]:
        assert f"results/{figure.parents[1].name}/{figure.name}" in pages, figure.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")
def test_it_is_searched_from_a_file_and_says_nothing_on_the_console(site):
    words = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
             "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom"]  # fmt: skip
    done = subprocess.run([*words, f"file://{site}/index.html?q=barrier"], capture_output=True, text=True, timeout=120)
    (found,) = re.findall(r'md-search-result__meta">(\d+) matching documents', done.stdout)
    assert int(found) > 5
    assert "reference/connectivity.html" in done.stdout
    assert "CONSOLE" not in done.stderr


def test_a_broken_link_would_fail_the_build(tmp_path):
    """The negative control: strictness is on (it is off under `--quiet`, which drops warnings before they are counted)."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[nowhere](missing.md)\n")
    strict = re.search(r"^strict: true\n", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert strict
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\n{strict.group()}")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "missing.md" in done.stderr

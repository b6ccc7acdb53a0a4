"""What a public host runs and shows: workflows agree with the Makefile and pyproject.toml, and the repository's address stands in one place."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
sys.path.append(str(ROOT / ".github"))
address, run_locally = (importlib.import_module(name) for name in ("address", "run_locally"))
JOBS = list(run_locally.jobs())


def targets() -> set[str]:
    """The targets of the Makefile that are no files."""
    (line,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    return set(line.replace("\\", " ").split())


@pytest.mark.parametrize("file", [*WORKFLOWS, *(ROOT / name for name in ("docs", "README.md", "CONTRIBUTING.md"))])
def test_every_make_target_that_is_named_exists(file):
    pages = file.glob("*.md") if file.is_dir() else [file]
    named = {
        name for page in pages for name in re.findall(r"(?:`|run: |^)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert named <= targets()


def test_make_alone_lists_the_targets():
    shown = subprocess.check_output(["make", "-C", str(ROOT), "--no-print-directory"], text=True)
    listed = re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE)
    assert {"demo", "test", "check", "docs"} < set(listed)
    assert targets() - set(listed) == {"help", "matrix-versions", "matrix-processors"}
    assert max(map(len, shown.splitlines())) <= 120


def made_site(folder: Path, mike: str) -> str:
    """What make docs-version prints with a tool of that script in place of mike."""
    tools = folder / "venv" / "bin"
    tools.mkdir(parents=True)
    for name, script in {"python": "exit 1", "mkdocs": "exit 0", "mike": mike}.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    (folder / "venv" / ".installed-dev").touch()
    words = [
        "make",
        "--no-print-directory",
        "-C",
        str(ROOT),
        "docs-version",
        f"VENV={folder / 'venv'}",
        "VERSION=v1",
        "ALIAS=latest",
    ]
    return subprocess.check_output(words, text=True, env={"PATH": "/usr/bin:/bin"})


def test_the_site_of_a_version_is_built_without_an_activated_environment(tmp_path):
    """mike looks for mkdocs on PATH, where neither a shell nor a job of the host has that of make's environment."""
    said = made_site(tmp_path, 'test "$1" != deploy || mkdocs && echo "mike $*"')
    assert "\nmike deploy --update-aliases v1 latest\n" in said
    assert said.endswith("mike set-default latest\n")


def test_a_site_without_a_release_opens_with_what_is_there(tmp_path):
    said = made_site(tmp_path, 'test "$2" != latest && echo "mike $*"')
    assert said.endswith("mike set-default v1\n")


def test_the_pythons_of_the_workflows_are_those_of_the_package():
    """What is claimed is tested; what is only tried beyond it cannot fail a change."""
    claimed = set(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
    assert PROJECT["requires-python"] == ">=" + min(claimed, key=lambda version: int(version.split(".")[1]))
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    rows = ci["versions"]["strategy"]["matrix"]["include"]
    assert {row["python"] for row in rows if not row["experimental"]} == claimed
    assert {job.python for job in JOBS} - {""} - {row["python"] for row in rows if row["experimental"]} <= claimed
    assert all((ROOT / row["constraints"]).exists() for row in rows)
    assert {row["constraints"] for row in rows} == {file.name for file in ROOT.glob("constraints*.txt")}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_job_ends_and_may_do_no_more_than_it_needs(file):
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 360, name
        assert set(job.get("permissions", {})) <= ({"contents"} if file.stem == "pages" else {"id-token"}), name
        for step in job["steps"]:
            assert "uses" not in step or re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", step["uses"]), step


def test_what_cannot_run_here_is_named():
    said = {job.title: job.obstacle() for job in JOBS if not job.system.startswith("ubuntu") or not job.steps}
    assert any("macos" in title and "needs macos" in why for title, why in said.items())
    assert any("publish" in title and "the host's own" in why for title, why in said.items())
    (package,) = (job for job in JOBS if job.name == "package")
    assert package.steps[0] == "make release PYTHON=python"


def test_the_hooks_are_the_tools_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {re.sub(r"\.venv/bin/| --fix", "", hook["entry"]) for hook in hooks}
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    tools = {re.sub(r"\$\(BIN\)/| --check| \.$", "", line.strip()) for line in recipe.splitlines()}
    assert entries == tools


def test_the_address_stands_the_same_everywhere():
    owner, name = address.current()
    for path in address.files(ROOT):
        if path.suffix in (".md", ".yml", ".toml", ".cff", ".py", ".ipynb", ".json") and path != Path(__file__):
            for other in re.findall(rf"github\.com/(?:github/)?([\w-]+/{re.escape(name)})\b", path.read_text()):
                assert other == f"{owner}/{name}", path
    for place in ("README.md", "CITATION.cff", "mkdocs.yml", "notebooks/3_a_soup.ipynb", ".github/SECURITY.md"):
        assert f"{owner}/{name}" in (ROOT / place).read_text(), place


TEXT = """repository-code: https://github.com/old/net
[badge](https://github.com/old/net/actions/workflows/ci.yml/badge.svg) https://github.com/old/net-other https://github.com/other/net
https://colab.research.google.com/github/old/net/blob/main/a.ipynb https://old.github.io/net/ pip install git+https://github.com/old/net.git
"""


def test_an_address_is_written_once_and_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr(address, "files", lambda root: sorted(root.iterdir()))
    project = '[project.urls]\nRepository = "https://github.com/old/net"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "page.md").write_text(TEXT)
    (tmp_path / "CODEOWNERS").write_text("* @old\n")
    (tmp_path / "figure.png").write_bytes(b"\x89PNG old/net")

    new = address.parsed("https://github.com/new-owner/its.net.git")
    assert new == ("new-owner", "its.net")
    assert len(address.write(new, tmp_path)) == 3
    assert address.current(tmp_path) == new
    assert address.write(new, tmp_path) == []
    page = (tmp_path / "page.md").read_text()
    assert page.count("new-owner") == 5 and page.count("/old/net-other") == 1 and "other/net" in page
    assert "https://new-owner.github.io/its.net/" in page and "its.net.git" in page
    assert (tmp_path / "CODEOWNERS").read_text() == "* @new-owner\n"

    address.write(("old", "net"), tmp_path)  # and back
    assert (tmp_path / "page.md").read_text() == TEXT and (tmp_path / "pyproject.toml").read_text() == project


@pytest.mark.parametrize(
    "url", ["", "github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/tree/main"]
)
def test_what_is_no_repository_is_refused(url):
    with pytest.raises(ValueError, match="https://github.com/OWNER/REPOSITORY"):
        address.parsed(url)

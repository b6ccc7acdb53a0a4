"""What is released: one version, typed packages, a licence, distributions that check and install, and completion for the shell."""

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import tna_jax
from tests.project.first_run import first_run
from tna_jax.programs.cli.main import PROGRAMS, main
from tna_jax.programs.completion.run import Words, options_of, script

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
READS_ITS_OWN = ("resume",)
"""Programs that read their command line themselves."""


def test_the_version_stands_in_one_place(capsys):
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tna_jax {tna_jax.__version__}\n"
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {tna_jax.__version__}\n" in citation
    assert "2402.01342" in citation
    (latest, *_) = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest == tna_jax.__version__


def test_licence_and_types():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").exists()


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60


def test_constraints_are_within_what_the_package_asks_for():
    """The oldest versions tried are the ones that the package allows."""
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    for line in PROJECT["project"]["dependencies"]:
        name, floor = line.split(">=")
        pinned, asked = ([int(part) for part in version.split(".")] for version in (oldest[name], floor))
        assert pinned[: len(asked)] == asked, line


@pytest.mark.parametrize("name", PROGRAMS)
def test_completion_knows_the_options_of_every_program(name, monkeypatch):
    """What completion takes to be a program's options is what the program parses."""
    module = importlib.import_module(PROGRAMS[name][0])
    if name in READS_ITS_OWN:
        assert options_of(module.__name__) is Words
        return
    seen = []

    def launch(program, cls, run, arguments, description):
        seen.append((program, cls))
        return 0

    monkeypatch.setattr(module, "launch", launch)
    module.main([])
    assert seen == [(name, options_of(module.__name__))]


BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
function=$(complete -p tna | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(file: Path, *words: str) -> list[str]:
    done = subprocess.run(["bash", "-c", BASH, "bash", str(file), *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_programs_and_options(tmp_path):
    file = tmp_path / "tna.bash"
    file.write_text(script("bash"))
    subprocess.run(["bash", "-n", str(file)], check=True)
    assert completed(file, "tna", "lm") == ["lmc"]
    assert set(PROGRAMS) <= set(completed(file, "tna", ""))
    assert completed(file, "tna", "lmc", "--rat") == ["--ratios"]
    assert completed(file, "tna", "nothing-like-it") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script(shell):
    assert all(name in script(shell) for name in PROGRAMS)


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_distributions_check_and_the_wheel_runs_in_an_empty_environment(dist, tmp_path):
    files = sorted(dist.iterdir())
    assert [file.name for file in files] == [
        f"tna_jax-{tna_jax.__version__}-py3-none-any.whl",
        f"tna_jax-{tna_jax.__version__}.tar.gz",
    ]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True)
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(files[0])], check=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "XLA_FLAGS")}
    tna = python.with_name("tna")
    first_run(tna, tmp_path, clean)
    assert (tmp_path / "first" / "lmc.png").stat().st_size > 10_000
    version = subprocess.run([tna, "--version"], cwd=tmp_path, env=clean, capture_output=True, text=True).stdout
    assert version == f"tna_jax {tna_jax.__version__}\n"

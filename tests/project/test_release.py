"""What is released: one version, one typed package, a license, distributions that check and install, and completion for the shell."""

import functools
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import tna_jax
from tests.project.first_run import first_run
from tests.project.own_model import COMMANDS, barrier_of_own_model, lines_of_code
from tests.xla_flags import environment_of_a_user
from tna_jax.programs.cli import arguments
from tna_jax.programs.cli.catalog import PROGRAMS, options_of
from tna_jax.programs.cli.main import main
from tna_jax.programs.completion.run import script

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_links_of_the_readme_lead_somewhere_on_an_index_too():
    text = (ROOT / "README.md").read_text()
    here = set(re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text))
    assert len(here) > 10 and all((ROOT / target).exists() for target in here)
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert not re.findall(r"\]\((?!https?:|#)", text)
    repository = PROJECT["project"]["urls"]["Repository"]
    assert (
        f"]({repository}/blob/main/docs/start.md)" in text and f"]({repository}/raw/main/docs/images/idea.png)" in text
    )


def test_the_version_stands_in_one_place(capsys):
    assert PROJECT["project"]["dynamic"] == ["version", "readme"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tna_jax {tna_jax.__version__}\n"
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {tna_jax.__version__}\n" in citation
    assert "2402.01342" in citation
    (latest, *_) = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest == tna_jax.__version__


def test_license_and_types():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["tna_jax"]
    assert (ROOT / "tna_jax" / "py.typed").exists()


REQUIREMENT = re.compile(r"(?P<name>[\w-]+)(?:\[(?P<extras>[\w,-]+)\])?(?P<versions>[<>=!,\d.]*)")


def requirements(*extras: str) -> dict[str, str]:
    """What an installation asks for: package to its versions; extras that name extras are followed."""
    asked = {}
    lines = list(PROJECT["project"]["dependencies"])
    while extras:
        lines += [line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]]
        inner = [
            match["extras"].split(",")
            for line in lines
            if (match := REQUIREMENT.match(line)) and match["name"] == "tna-jax"
        ]
        lines = [line for line in lines if not line.startswith("tna-jax")]
        extras = tuple(name for names in inner for name in names)
    for line in lines:
        match = REQUIREMENT.fullmatch(line)
        assert match, line
        asked[match["name"]] = match["versions"]
    return asked


def test_constraints_are_within_what_the_package_asks_for():
    """The oldest versions tried are the ones that the package allows."""
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints-oldest.txt").read_text(), re.MULTILINE))
    for name, versions in requirements("cli").items():
        floor = versions.split(",")[0].removeprefix(">=")
        pinned, asked = ([int(part) for part in version.split(".")] for version in (oldest[name], floor))
        assert pinned[: len(asked)] == asked, name


def test_everything_installed_is_pinned():
    """`make` takes versions from constraints.txt; what it does not name, a stranger's resolver chooses."""
    pinned = set(re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    exact = {
        name
        for extra in ("dev", "parity", "bench")
        for name, versions in requirements(extra).items()
        if "==" in versions
    }
    assert set(requirements("dev", "hf", "parity", "bench")) - exact - pinned <= {"psutil"}


def test_the_extras_hold_what_their_programs_need():
    """The command comes with what it reads, draws and writes; what stands on the command brings it."""
    core = {"jax", "flax", "optax", "chex", "numpy", "scipy", "jaxtyping"}
    assert set(requirements()) <= core
    command = set(requirements("cli"))
    assert {
        "tyro",
        "rich",
        "matplotlib",
        "scikit-learn",
        "safetensors",
        "orbax-checkpoint",
        "jinja2",
        "plotly",
    } <= command
    assert requirements("cli")["orbax-checkpoint"].endswith(",<1")
    for extra in ("federated", "bench", "docs", "notebooks", "test", "dev"):
        assert command <= set(requirements(extra)), extra


def test_requirements_txt_installs_the_project_itself():
    (line,) = [text for text in (ROOT / "requirements.txt").read_text().splitlines() if not text.startswith("#")]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", line)
    assert extras
    asked = requirements(*extras[1].split(","))
    assert set(requirements("cli", "tfds", "test")) <= set(asked)
    assert any(extra.startswith("cuda") for extra in extras[1].split(","))


BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
function=$(complete -p tna | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function
printf '%s\\n' "${COMPREPLY[@]}"
"""


completion = functools.cache(script)


def completed(file: Path, *words: str) -> list[str]:
    done = subprocess.run(["bash", "-c", BASH, "bash", str(file), *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.slow
def test_bash_completes_programs_and_options(tmp_path):
    file = tmp_path / "tna.bash"
    file.write_text(completion("bash"))
    subprocess.run(["bash", "-n", str(file)], check=True)
    assert completed(file, "tna", "lm") == ["lmc"]
    assert set(PROGRAMS) <= set(completed(file, "tna", ""))
    assert completed(file, "tna", "lmc", "--rat") == ["--ratios"]
    assert completed(file, "tna", "nothing-like-it") == []


COMPLETE = {
    "zsh": "_files() { echo FILES }; _describe() { print -lr -- $completion_array }; words=({words}); CURRENT={count}; source {file}",
    "fish": "source {file}; complete -C '{line}'",
}


def shown(shell: str, file: Path, line: str) -> str:
    """What a shell completes at the end of a line; of zsh, `FILES` where it would list files."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    words = line.split(" ")
    fields = {
        "{file}": str(file),
        "{line}": line,
        "{words}": " ".join(word or '""' for word in words),
        "{count}": str(len(words)),
    }
    code = COMPLETE[shell]
    for field, value in fields.items():
        code = code.replace(field, value)
    return subprocess.run([shell, "-c", code], cwd=file.parent, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_bash_completes_runs_files_and_values(tmp_path, monkeypatch):
    file = tmp_path / "tna.bash"
    file.write_text(completion("bash"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first-run").mkdir()
    for words in (
        ["barrier", "fir"],
        ["fuse", "first-run", "fir"],
        ["report", "first-run", "-o", "fir"],
        ["train", "--config", "fir"],
    ):
        assert completed(file, "tna", *words) == ["first-run"], words
    assert completed(file, "tna", "barrier", "--pre") == ["--precision"]
    assert completed(file, "tna", "export", "--format", "s") == ["safetensors"]
    assert "first-run" not in completed(file, "tna", "lmc", "")  # takes none


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_runs_files_and_values(shell, tmp_path):
    file = tmp_path / "script"
    file.write_text(completion(shell))
    (tmp_path / "first-run").mkdir()
    files = {"zsh": "FILES", "fish": "first-run/"}[shell]
    for line in ("tna barrier fir", "tna fuse first-run fir", "tna train --config fir"):
        assert files in shown(shell, file, line), line
    for line, word in {"tna barrier --pre": "--precision", "tna lmc --model m": "mlp"}.items():
        assert word in shown(shell, file, line) and files not in shown(shell, file, line), line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_all_programs_and_their_options(shell):
    text = completion(shell)
    for name in PROGRAMS:
        assert name in text
        for option in arguments.options(options_of(name)):
            word = option.flag.removeprefix("--")  # fish and zsh write it in ways of their own
            assert option.hidden or option.metavar or option.field == "shell" or word in text, (name, word)
    assert "dataset-sha256" not in text  # what a run records, and nobody writes


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


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (file,) = dist.glob("*.whl")
    return file


STRANGER = 'raise RuntimeError("this is a file of the user, not of tna_jax")\n'


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_is_one_package_and_users_have_their_own_train_and_fusion(wheel, tmp_path):
    """Beside packages `train` and `fusion` in site-packages, and files of these names here and on PYTHONPATH, `tna` works."""
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {"tna_jax", f"tna_jax-{tna_jax.__version__}.dist-info"}

    venv.create(tmp_path / "environment")  # empty, but for this
    python = tmp_path / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "-q"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # JAX and the rest, as installed here
    here, on_path = tmp_path / "here", tmp_path / "on_path"
    for name in ("train", "fusion"):
        for folder in (here, on_path):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.py").write_text(STRANGER)
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(STRANGER)

    environment = environment_of_a_user(PYTHONPATH=str(on_path))
    where = "import tna_jax; print(tna_jax.__file__)"
    assert subprocess.check_output([python, "-c", where], cwd=here, env=environment, text=True).startswith(str(site))
    theirs = subprocess.run([python, "-c", "import train"], cwd=here, env=environment, capture_output=True, text=True)
    assert "a file of the user" in theirs.stderr  # the trap is set
    first_run(python.with_name("tna"), here, environment)
    listed = subprocess.run(
        [python, "-m", "tna_jax", "runs", "."], cwd=here, env=environment, capture_output=True, text=True
    )
    assert listed.returncode == 0, listed.stderr
    assert "first" in listed.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_distributions_check(dist):
    files = sorted(dist.iterdir())
    assert [file.name for file in files] == [
        f"tna_jax-{tna_jax.__version__}-py3-none-any.whl",
        f"tna_jax-{tna_jax.__version__}.tar.gz",
    ]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True)


class Installed(NamedTuple):
    """An environment with the wheel, its extra `cli`, and nothing else."""

    python: Path
    environment: dict[str, str]
    bare: subprocess.CompletedProcess
    """What `tna lmc` said before the extra was installed."""

    @property
    def tna(self) -> Path:
        return self.python.with_name("tna")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Installed:
    folder, clean = tmp_path_factory.mktemp("installed"), environment_of_a_user()
    venv.create(folder / "empty", with_pip=True)
    python = folder / "empty" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, wheel], check=True)
    library = "from tna_jax import anchored, barrier, federated, masks, matching, models"
    subprocess.run([python, "-W", "error", "-c", library], cwd=folder, env=clean, check=True)
    bare = subprocess.run([python.with_name("tna"), "lmc"], cwd=folder, env=clean, capture_output=True, text=True)
    subprocess.run([*pip, f"{wheel}[cli]"], check=True)
    return Installed(python, clean, bare)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_runs_in_an_empty_environment(installed, tmp_path):
    assert installed.bare.returncode == 2
    assert "pip install 'tna-jax[cli]'" in installed.bare.stderr
    assert len(installed.bare.stderr.splitlines()) == 1
    first_run(installed.tna, tmp_path, installed.environment)
    assert (tmp_path / "first" / "lmc.png").read_bytes().startswith(b"\x89PNG")
    words = [installed.tna, "--version"]
    version = subprocess.run(words, cwd=tmp_path, env=installed.environment, capture_output=True, text=True).stdout
    assert version == f"tna_jax {tna_jax.__version__}\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_own_network_and_own_data_to_a_barrier_in_three_commands(installed, tmp_path):
    assert lines_of_code() < 25 and len(COMMANDS) == 3
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    (tmp_path / "empty").mkdir()
    barrier_of_own_model(installed.tna, tmp_path / "empty", installed.environment | state, installed.python)

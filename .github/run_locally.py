"""`make workflows-run JOBS="check package"`: runs the `run:` steps of the workflows' Linux jobs here, in a clone, and names what it cannot run.

Without names it lists all jobs. What stands behind `uses:` belongs to the host (checkout, Python, uploads, publishing) and is not run: a clone of HEAD stands for the
checkout, a fresh environment of the job's Python for setup-python. Jobs for macOS, Windows, runners of one's own, and Pythons that are not here are named as not run.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


class Job(NamedTuple):
    """One job with one row of its matrix."""

    workflow: str
    name: str
    system: str
    python: str
    steps: list[str]
    """The scripts of its `run:` steps."""
    uses: list[str]

    @property
    def title(self) -> str:
        return f"{self.workflow}/{self.name} ({self.system}, Python {self.python})"

    def obstacle(self) -> str:
        """Returns why it cannot be run here; empty if it can."""
        if not self.system.startswith("ubuntu"):
            return f"needs {self.system}"
        if not self.steps:
            return f"nothing but the host's own: {', '.join(self.uses)}"
        return "" if interpreter(self.python) else f"no Python {self.python} here"


def jobs() -> Iterator[Job]:
    """Yields all jobs of all workflows, one for each row of a matrix."""
    for file in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for name, job in yaml.safe_load(file.read_text())["jobs"].items():
            rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
            for row in rows:
                yield expanded(file.stem, name, job, row)


def expanded(workflow: str, name: str, job: dict[str, Any], row: dict[str, Any]) -> Job:
    """Returns a job with the values of a row in place of `${{ matrix.NAME }}`; of other expressions the commit's name is filled in."""

    def fill(text: str) -> str:
        values = {f"matrix.{key}": str(value) for key, value in row.items()} | {"github.ref_name": "v" + version()}
        values |= {
            "github.ref_type == 'tag' && github.ref_name || 'dev'": "dev",
            "github.ref_type == 'tag' && 'latest' || ''": "",
        }
        return EXPRESSION.sub(lambda match: values.get(match[1], match[0]), text)

    python = next(
        (step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})), ""
    )
    scripts = []
    for step in job["steps"]:
        if "run" in step:
            exports = [f'export {key}="{fill(str(value))}"' for key, value in step.get("env", {}).items()]
            scripts.append("\n".join([*exports, fill(step["run"])]))
    return Job(
        workflow, name, fill(job["runs-on"]), fill(python), scripts, [s["uses"] for s in job["steps"] if "uses" in s]
    )


def version() -> str:
    """Returns the version of the package."""
    (value,) = re.findall(r'__version__ = "(.*)"', (ROOT / "tna_jax" / "version.py").read_text())
    return str(value)


@functools.cache
def interpreter(wanted: str) -> str | None:
    """Returns a Python of that version that starts (a shim of a version manager may not)."""
    if not wanted:
        return sys.executable
    candidates = [
        shutil.which(f"python{wanted}"),
        *map(str, Path.home().glob(f".pyenv/versions/{wanted}.*/bin/python3")),
    ]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0:
            return candidate
    return None


def run(job: Job) -> bool:
    """Runs the steps of a job in a clone of HEAD, each in a shell of its own as the host does; returns whether all succeeded."""
    with tempfile.TemporaryDirectory() as folder:
        clone, environment = Path(folder) / "checkout", Path(folder) / "python"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        remote = str(Path(folder) / "remote.git")  # what a step pushes stays here
        subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
        subprocess.run(["git", "remote", "set-url", "--push", "origin", remote], cwd=clone, check=True)
        subprocess.run([str(interpreter(job.python)), "-m", "venv", str(environment)], check=True)
        (Path(folder) / "temp").mkdir()
        path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "RUNNER_TEMP": str(Path(folder) / "temp"), "CI": "true"}
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL"):
            variables.pop(name, None)
        for script in job.steps:
            print(f"--- {job.title}\n{script}", flush=True)
            started = time.monotonic()
            done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=clone, env=variables)
            print(f"--- exit code {done.returncode} after {time.monotonic() - started:.0f} s", flush=True)
            if done.returncode:
                return False
    return True


def main() -> int:
    """Returns 1 if a job failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", help="names of jobs, `versions:3.13` for one Python; none: list them")
    wanted = parser.parse_args().jobs
    failed = False
    for job in jobs():
        chosen = not wanted or job.name in wanted or f"{job.name}:{job.python}" in wanted
        if chosen and (obstacle := job.obstacle()):
            print(f"not run: {job.title}: {obstacle}")
        elif not wanted:
            print(f"can run: {job.title}")
        elif chosen:
            failed |= not run(job)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Type checkers on the Python that README, start and how-to show, as a user's strict project would run them: `make check`.

And on `users_types`, which says that a user's own type of parameters is kept.

Each page becomes one file, its code on the lines where the page has it.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.project.snippets import ROOT

PAGES = ("README.md", "docs/start.md", "docs/how-to.md")


def module_of(page: str) -> str:
    """The Python of a page, every other line empty."""
    lines, inside = [], False
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def checkers(files: list[str]) -> list[list[str]]:
    """The commands that check the files: mypy, and basedpyright where it is installed."""
    commands = [[sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *files]]
    if importlib.util.find_spec("basedpyright"):
        commands.append([sys.executable, "-m", "basedpyright", "--level", "error", *files])
    return commands


def main() -> int:
    """Returns the number of checkers that found errors."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for page in PAGES:
            file = Path(folder) / f"{Path(page).stem.lower().replace('-', '_')}.py"
            file.write_text(module_of(page))
            files.append(str(file))
        files.append(str(Path(__file__).with_name("users_types.py")))
        return sum(subprocess.run(command, cwd=ROOT).returncode != 0 for command in checkers(files))


if __name__ == "__main__":
    sys.exit(main())

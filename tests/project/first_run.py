"""What a stranger does first with an installed `tna`."""

import json
import subprocess
from pathlib import Path

WORDS = [
    "--seeds",
    "1",
    "--epochs",
    "3",
    "--ratios",
    "0.4",
    "--methods",
    "tna",
    "--train-examples",
    "300",
    "--out",
    "first",
]


def first_run(tna: str | Path, folder: Path, environment: dict[str, str]) -> None:
    """A short `tna lmc` in `folder`; asserts that it has rows."""
    done = subprocess.run([tna, "lmc", *WORDS], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "first" / "lmc.json").read_text())["rows"]

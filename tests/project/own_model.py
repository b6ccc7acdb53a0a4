"""A stranger's own network and data: twenty lines of theirs and three commands, from an empty folder to the picture of a barrier."""

import subprocess
from pathlib import Path

NET = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 32, rngs=rngs)
        self.out = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.hidden(x)))

def create(rngs):
    return Net(rngs)
"""
DATA = """
import numpy as np
x = np.random.default_rng(0).normal(size=(600, 2)).astype("float32")
np.savez("data.npz", x_train=x, y_train=(x[:, 0] * x[:, 1] > 0).astype("int32"))
"""
COMMANDS = (
    "train --model ./net.py:create --dataset ./data.npz --members 3 --epochs 5 --out run",
    "barrier run",
    "report run",
)
PNG = b"\x89PNG"


def lines_of_code() -> int:
    """How many lines the user has written, the blank ones not counted."""
    return sum(bool(line.strip()) for line in (NET + DATA).splitlines())


def barrier_of_own_model(tna: str | Path, folder: Path, environment: dict[str, str], python: str | Path) -> None:
    """Runs the three commands in `folder`; asserts that they end well, without a warning, and draw the barrier."""
    (folder / "net.py").write_text(NET)
    (folder / "make_data.py").write_text(DATA)
    subprocess.run([python, "make_data.py"], cwd=folder, env=environment, check=True)
    for command in COMMANDS:
        done = subprocess.run([tna, *command.split()], cwd=folder, env=environment, capture_output=True, text=True)
        said = f"tna {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0 and "warning" not in said.lower(), said
    assert (folder / "run" / "barrier.png").read_bytes().startswith(PNG)
    assert "Barriers between pairs" in (folder / "run" / "report.html").read_text()

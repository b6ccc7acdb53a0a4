"""A regression network of a user's own, between two of which one walks: squared error along the line, with and without anchors.

Shows: that anchors, paths and barriers take any model and any objective: network and data are the user's files
  `examples/regression/net.py` and `diabetes.py`, and neither is part of the library.
Hardware: two CPU cores, about a minute. `--full` takes a wider network; it has not been run.
Command: `python -m train regression`
Expected: from one initialization no barrier to speak of, with anchors or without; from different ones a barrier, smaller with anchors on
  average, and none with the heavy recipe. So few examples are fitted too well, and anchors lower the error of the ends too. Mean and sample standard deviation over 5 pairs,
  on test examples.
Data: diabetes of Efron et al. 2004 (in scikit-learn), targets in units of their standard deviation: 353 training and 89 test examples; Adam
  0.003, batch 32, 60 epochs.
Recipe: 40 % of each weight anchored at the initial values of the pair's first model, or `--recipe heavy` (40 % of each unit at 1.5 times
  these values, all other weights start at a tenth; no warm-up); each model of a pair has a data order of its own.
"""

from pathlib import Path
from typing import Any

from tna_jax import objectives
from train import own_networks

EXAMPLE = own_networks.Example("regression", "net", "diabetes", objectives.regression(), "absolute_error")
SMALL = {"options": {"width": 64}, "train": None, "test": None, "epochs": 60, "batch_size": 32, "learning_rate": 3e-3}
FULL = SMALL | {"options": {"width": 1024}}


def run(full: bool = False) -> dict[str, Any]:
    """Returns a case for each kind of initialization and ratio of anchors."""
    return own_networks.cases(EXAMPLE, FULL if full else SMALL, full)


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws the squared error along the line, a panel for each kind of initialization."""
    own_networks.figure(EXAMPLE, result, file)


def table(result: dict[str, Any]) -> None:
    """Prints ends, midpoint and barrier of every case."""
    own_networks.table(EXAMPLE, result, "A regression net of a user's own: test squared error, mean ± std over pairs")

"""A GPT of a user's own, between two of which one walks: nats a token along the line, with and without anchors.

Shows: that anchors, paths and barriers take any model and any objective: the network and the text are the user's files
  `examples/language_model/gpt.py` and `text.py` (RMSNorm, rotary positions, causal attention, tied embeddings; characters), and neither is
  part of the library.
Hardware: two CPU cores, about 15 minutes. `--full` takes a wider and deeper network for a GPU; it has not been run.
Command: `TNA_DATA_DIR=... python -m train language_model`
Expected: from one initialization a small barrier, smaller with anchors; from different ones a large barrier, which anchors alone make
  smaller and the heavy recipe nearly removes. Mean and sample standard deviation over 5 pairs, on test text.
Data: the sentences of SUBJ as characters, pieces of 64; 6,400 pieces for training, 1,000 for test; Adam 0.003, batch 32, 2 epochs.
Recipe: 40 % of each weight anchored at the initial values of the pair's first model, or `--recipe heavy` (40 % of each unit at 1.5 times
  these values, all other weights start at a tenth; no warm-up); each model of a pair has a data order of its own.
"""

from pathlib import Path
from typing import Any

from tna_jax import objectives
from train import own_networks

EXAMPLE = own_networks.Example("language_model", "gpt", "text", objectives.next_token(), "perplexity")
SMALL = {"options": {"width": 32, "depth": 2, "heads": 2}, "train": 6400, "test": 1000, "epochs": 2, "batch_size": 32,
         "learning_rate": 3e-3}  # fmt: skip
FULL = {"options": {"width": 256, "depth": 6, "heads": 8}, "train": 18_143, "test": 2016, "epochs": 20, "batch_size": 64,
        "learning_rate": 1e-3}  # fmt: skip


def run(full: bool = False) -> dict[str, Any]:
    """Returns a case for each kind of initialization and ratio of anchors."""
    return own_networks.cases(EXAMPLE, FULL if full else SMALL, full)


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws nats a token along the line, a panel for each kind of initialization."""
    own_networks.figure(EXAMPLE, result, file)


def table(result: dict[str, Any]) -> None:
    """Prints ends, midpoint and barrier of every case."""
    own_networks.table(EXAMPLE, result, "A GPT of a user's own: test nats a token, mean ± std over pairs")

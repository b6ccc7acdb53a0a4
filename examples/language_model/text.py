"""Sentences as characters, for next-token language modeling. `tna train --dataset ./text.py:load --objective next-token`.

The text is that of a file of `label<TAB>sentence` lines, gzipped or not: `TNA_TEXT=FILE`, default SUBJ (Pang and Lee 2004) in `TNA_DATA_DIR`.
"""

import gzip
import os
from pathlib import Path

import numpy as np

LENGTH = 64
"""Characters a sequence predicts."""


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs and targets (N, LENGTH) for training and test: each character, and the one that follows."""
    file = Path(os.environ.get("TNA_TEXT") or Path(os.environ["TNA_DATA_DIR"]) / "text" / "subj.all.tsv.gz")
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    sentences = [line.rpartition("\t")[2] for line in raw.decode(errors="replace").splitlines()]
    text = np.frombuffer("\n".join(sentences).encode("ascii", errors="replace"), np.uint8)
    tokens = np.where((text >= 32) & (text < 127), text - 31, 0).astype(np.int32)  # 0: the end of a sentence
    rows = tokens[: (len(tokens) - 1) // LENGTH * LENGTH + 1]
    inputs, targets = rows[:-1].reshape(-1, LENGTH), rows[1:].reshape(-1, LENGTH)
    test = np.arange(len(inputs)) % 10 == 0  # every tenth piece
    return inputs[~test], targets[~test], inputs[test], targets[test]

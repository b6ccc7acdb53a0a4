"""The small commands that tests share, and how they are run."""

import json
from pathlib import Path

from tna_jax.io import safetensors
from tna_jax.programs.cli.main import main

NINE = ["--width", "16", "--depth", "2", "--epochs", "3", "--members", "9"]
UNALIGNED = ["--width", "16", "--depth", "2", "--epochs", "12", "--train-examples", "400", "--test-examples", "200",
             "--members", "3", "--ratio", "0", "--init", "different"]  # fmt: skip
VIT = ["--width", "16", "--depth", "1", "--patch", "4", "--dataset", "digits:0-4", "--train-examples", "200",
       "--epochs", "2", "--batch-size", "8", "--learning-rate", "1e-2", "--augmentation", "0"]  # fmt: skip
BERT = ["--model", "bert", "--width", "16", "--depth", "1", "--vocab", "256", "--length", "12", "--tasks", "mr", "trec",
        "--epochs", "2", "--batch-size", "40"]  # fmt: skip
GIVEN = ["--dataset", "digits", "--train-examples", "150", "--held-out-examples", "100", "--test-examples", "100", "--batch-size", "50",
         "--severities", "5"]  # fmt: skip
SOUP = [*GIVEN, "--recipes", "3", "--ratios", "0", "0.5", "--epochs", "2"]
COLD = ["--tasks", "mr", "trec", "--unseen", "subj", "--iterations", "2", "--examples", "60", "--score-examples", "40",
        "--score-epochs", "1", "--probe-examples", "60", "--batch-size", "20", "--length", "12", "--ratios", "0", "0.5"]  # fmt: skip


def read(file: Path):
    return json.loads(file.read_text())


def fails(capsys, *words: str) -> str:
    """Runs `tna` with wrong options; returns the last line it prints, which is not one of a traceback."""
    assert main(list(words)) == 2
    printed = capsys.readouterr().err.strip()
    assert "Traceback" not in printed, printed
    return printed.splitlines()[-1]


def same_arrays(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same bytes under the same names."""
    a, b = (safetensors.read(folder / "model.safetensors")[0] for folder in (one, other))
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)

"""ColD Fusion of seven text tasks into one encoder, with a fresh shared mask in each iteration and without anchors.

Shows: accuracy of the fused body after each iteration, by fine-tuning it on a task and by a linear probe of its frozen features, on
  the seven tasks that contribute and on two that never do; by mask ratio.
Hardware: two CPU cores, about 27 minutes after `pretraining`. `--full` is for a GPU; it has not been run.
Command: `python -m fusion cold`
Expected: after 3 iterations the fused body beats the starting one on the seen tasks, less so the more is anchored, and on AG News
  of the unseen ones; RTE stays at chance. Mean over tasks, mean and sample standard deviation over 5 seeds (heads, anchors,
  examples, data orders); all start from one pretrained encoder.
Data: SST-2, MR, SUBJ, TREC, CR, MPQA, CoLA contribute; AG News and RTE are unseen. Their training *texts*, but no labels, were in the
  pretraining of the encoder (see `pretraining`).
A downloaded BERT or RoBERTa takes the checkpoint's place: `tna cold --checkpoint PATH` with the options of the result's `config`.
"""

from pathlib import Path
from typing import Any

from tna_jax.io.json_files import to_json
from tna_jax.programs.cold import report as cold_report
from tna_jax.programs.cold import run as cold
from tna_jax.programs.cold.options import ColdOptions
from tna_jax.programs.reports import png, terminal
from train import pretraining
from train.cells import finished

SMALL: dict[str, Any] = {
    "ratios": (0.0, 0.2, 0.4, 0.6), "seeds": 5, "iterations": 3, "examples": 2000, "batch_size": 32, "epochs": 1,
    "learning_rate": 1e-3, "score_examples": 500, "score_epochs": 4, "tune_every": 3, "probe_examples": 1000, "test_examples": 1000,
}  # fmt: skip
FULL: dict[str, Any] = {**SMALL, "iterations": 10, "tune_every": 1, "probe_examples": 2000, "examples": 4000,
                        "epochs": 2, "length": 64, "score_examples": 2000,
                        "score_epochs": 4, "test_examples": None, "learning_rate": 5e-4}  # fmt: skip
KEPT = ("config", "stands_on", "parameters", "tasks", "rows", "anchors_moved", "summary", "headline")


def run(full: bool = False) -> dict[str, Any]:
    """Runs the fusions of all ratios and seeds at once."""
    options = ColdOptions(checkpoint=pretraining.checkpoint("bert", full), **(FULL if full else SMALL))
    found = finished(f"cold{'_full' if full else ''}", "texts", cold, options)
    contents: dict[str, Any] = to_json({**{key: found[key] for key in KEPT}, "run": found["provenance"]})
    return contents


def figure(result: dict[str, Any], file: Path) -> None:
    """As the program draws it."""
    png.draw(cold_report.describe(result), file)


def table(result: dict[str, Any]) -> None:
    """As the program prints it."""
    terminal.show(cold_report.describe(result))

"""The two small transformers that the soups and ColD Fusion stand on, pretrained with the project's own program.

Shows: loss and accuracy by epoch of a ViT that classifies CIFAR-100's test file and half of CIFAR-10's classes, and of a BERT encoder
  that predicts hidden tokens of every training text of ten tasks. They take the place of downloaded checkpoints, which
  `tna soup --checkpoint PATH` and `tna cold --checkpoint PATH` take just as well.
Hardware: two CPU cores, about 25 minutes. `--full` trains larger ones for a GPU; it has not been run.
Command: `python -m train pretraining`
Expected: the ViT well above chance (1 of 105 classes); the encoder below the loss of the tokens' frequencies. One seed each.
Data: CIFAR-10 classes airplane, automobile, bird, cat, deer (25,000 images) and 9,000 of CIFAR-100's 10,000 test images; the different
  training texts of SST-2, SST-5, MR, CR, MPQA, SUBJ, TREC, CoLA, RTE, AG News, without labels, and a tokenizer trained on them.
"""

from pathlib import Path
from typing import Any

from tna_jax.io.json_files import to_json
from tna_jax.programs.pretrain import report as pretrain_report
from tna_jax.programs.pretrain import run as pretrain
from tna_jax.programs.pretrain.options import PretrainOptions
from tna_jax.programs.reports import png, terminal
from train.cells import RUNS, finished
from train.plots import page

VIT = PretrainOptions(
    model="vit", dataset="cifar10:0-4+cifar100_test", width=192, depth=6, heads=3, patch=8, epochs=10, batch_size=64,
    learning_rate=7e-4, weight_decay=0.05, label_smoothing=0.1, augmentation=0.5, test_examples=2000,
)  # fmt: skip
BERT = PretrainOptions(
    model="bert", width=96, depth=2, heads=4, vocab=4096, length=32, epochs=15, batch_size=64, learning_rate=2e-3,
    weight_decay=0.01, test_examples=3000,
)  # fmt: skip
FULL = {
    "vit": PretrainOptions(
        model="vit", dataset="cifar10:0-4+cifar100_test", width=192, depth=9, heads=3, patch=4, epochs=100,
        batch_size=256, learning_rate=1e-3, weight_decay=0.05, label_smoothing=0.1, augmentation=0.75,
    ),
    "bert": PretrainOptions(
        model="bert", width=256, depth=6, heads=4, vocab=8192, length=64, epochs=60, batch_size=256, learning_rate=1e-3,
        weight_decay=0.01,
    ),
}  # fmt: skip
SMALL = {"vit": VIT, "bert": BERT}
KEPT = ("config", "what", "parameters", "epochs", "test", "provenance")


def checkpoint(kind: str, full: bool = False) -> str:
    """The model folder of `vit` or `bert`, pretrained now if it is not there."""
    _pretrained(kind, full)
    return str(RUNS / f"pretraining{'_full' if full else ''}" / kind / pretrain.MODEL)


def _pretrained(kind: str, full: bool) -> dict[str, Any]:
    return finished(f"pretraining{'_full' if full else ''}", kind, pretrain, (FULL if full else SMALL)[kind])


def run(full: bool = False) -> dict[str, Any]:
    """Pretrains both."""
    contents: dict[str, Any] = to_json(
        {"models": {kind: {key: _pretrained(kind, full)[key] for key in KEPT} for kind in SMALL}}
    )
    return contents


def figure(result: dict[str, Any], file: Path) -> None:
    """Loss and accuracy by epoch, a row for each model."""
    with page(file, 2, 2) as axes:
        for row, (kind, found) in zip(axes, result["models"].items(), strict=True):
            for axis, name in zip(row, ("loss", "accuracy"), strict=True):
                png.picture(axis, pretrain_report.curves(found, name))
            row[0].set_title(f"{kind}, {found['parameters']:,} parameters", loc="left", fontsize=9)
        axes[0, 0].legend(fontsize=7, frameon=False)


def table(result: dict[str, Any]) -> None:
    """Both models."""
    for found in result["models"].values():
        terminal.show(pretrain_report.describe(found))

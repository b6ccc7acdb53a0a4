"""Soups of fine-tuned vision transformers, with shared anchors and without, on the test set and on shifted ones.

Shows: accuracy of the uniform and the greedy soup of fine-tuned ViTs against the best single model, the mean of the members
  and the ensemble of logits, by mask ratio; test set, and the mean of noise, blur and contrast (severity 3).
Hardware: two CPU cores, about 20 minutes after `pretraining`. `--full` is for a GPU; it has not been run.
Command: `python -m fusion soup`
Expected: the anchored uniform soup is better than the plain one by half a point to a point, and at 0.2 and 0.4 beats the best single model of its own population on the shifted sets. Mean and
  sample standard deviation over 3 seeds (head, anchors, data orders); all members start from one pretrained ViT, so the spread
  does not hold that of pretraining.
Data: CIFAR-10, of which the body has seen half the classes in pretraining (see `pretraining`); 1,000 held-out training images choose
  the best single model and the greedy soup.
A downloaded ViT takes the checkpoint's place: `tna soup --checkpoint PATH` with the options of the result's `config`.
"""

from pathlib import Path
from typing import Any

from tna_jax.io.json_files import to_json
from tna_jax.programs.reports import png, terminal
from tna_jax.programs.soup import report as soup_report
from tna_jax.programs.soup import run as soup
from tna_jax.programs.soup.options import SoupOptions
from train import pretraining
from train.cells import finished

SMALL: dict[str, Any] = {
    "ratios": (0.0, 0.2, 0.4, 0.6), "seeds": 3, "recipes": 4, "train_examples": 3000, "test_examples": 1000, "epochs": 2,
    "batch_size": 50, "learning_rates": (1e-3, 5e-4), "weight_decays": (0.01, 0.1), "label_smoothings": (0.0,),
    "augmentations": (0.5, 0.25),
}  # fmt: skip
FULL: dict[str, Any] = {**SMALL, "seeds": 5, "recipes": 8, "train_examples": None, "test_examples": None, "epochs": 10,
                        "batch_size": 256, "label_smoothings": (0.0, 0.1), "severities": (1, 3, 5)}  # fmt: skip
KEPT = ("config", "stands_on", "what", "parameters", "recipes", "shifted", "rows", "greedy", "summary", "headline")


def run(full: bool = False) -> dict[str, Any]:
    """Fine-tunes all models of all ratios and seeds at once, and fuses them."""
    checkpoint = pretraining.checkpoint("vit", full)
    options = SoupOptions(checkpoint=checkpoint, dataset="cifar10", **(FULL if full else SMALL))
    found = finished(f"soup{'_full' if full else ''}", "cifar10", soup, options)
    contents: dict[str, Any] = to_json({**{key: found[key] for key in KEPT}, "run": found["provenance"]})
    return contents


def figure(result: dict[str, Any], file: Path) -> None:
    """As the program draws it."""
    png.draw(soup_report.describe(result), file)


def table(result: dict[str, Any]) -> None:
    """As the program prints it."""
    terminal.show(soup_report.describe(result))

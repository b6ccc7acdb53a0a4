"""Straight lines and curved paths between networks that were trained apart: is there a wall between them, or only no straight way?

Shows: without anchors the straight line has a barrier and a curve with one trained bend has none (Garipov et al. 2018, arXiv 1802.10026): the
  valley is one, and what anchors change is that the straight line lies in it.
Hardware: two CPU cores, some twenty minutes. `--full` takes all of the data and a wider network; it has not been run.
Command: `python -m train curves`
Expected: accuracy barriers of straight lines that fall from no anchors over anchors to heavy ones, and next to none on any curve. Where the line is
  flat already, the bend, which is trained as long as the networks, fits the training examples too well: its test loss is above the
  line's. That bends are shorter under anchors was expected before it ran, and is not so. Mean and sample standard deviation over 5
  pairs, test set.
Data: Fashion-MNIST, 10,000 training images and the 10,000 test images; MLP 3x256, Adam 1e-3, batch 64, 20 epochs; the bends train as long, by Adam
  1e-3 too.
Recipe: `tna train` with ten networks in a row, every two of a pair with data orders of their own, then `tna barrier --curve-epochs 20`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.barrier import run as barrier
from tna_jax.programs.barrier.options import BarrierOptions
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cli.recipes import RECIPES
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train import cells
from train.plots import GREYS, page

PAIRS = 5
ROWS: dict[str, dict[str, Any]] = {
    "no anchors": {"ratio": 0.0, "init": "different"},
    "anchors 0.4": {"ratio": 0.4, "init": "different"},
    "heavy anchors": {**RECIPES["heavy"], "init": "different"},
    "no anchors, one initial value": {"ratio": 0.0, "init": "same"},
    "anchors 0.4, one initial value": {"ratio": 0.4, "init": "same"},
}
SMALL: dict[str, Any] = {
    "dataset": "fashion_mnist", "train_examples": 10_000, "model": "mlp", "depth": 3, "width": 256, "members": 2 * PAIRS,
    "optimizer": "adam", "learning_rate": 1e-3, "momentum": None, "batch_size": 64, "epochs": 20,
}  # fmt: skip
FULL = SMALL | {"train_examples": None, "width": 1024}
KEPT = ("pair", "kind", "accuracy_path", "loss_path", "accuracy_barrier", "loss_barrier", "deflection")


def run(full: bool = False) -> dict[str, Any]:
    """Returns, for every row, the straight and the curved path of each pair."""
    settings = FULL if full else SMALL
    found = []
    for name, options in ROWS.items():
        word = name.replace(", ", "_").replace(" ", "_")
        folder = cells.populated("curves" + ("_full" if full else ""), word, settings | options)
        found.append({"row": name, "options": options, **_walked(folder)})
    return {"settings": settings, "cases": found}


def _walked(folder: Path) -> dict[str, Any]:
    """The paths between the models of a run, computed now if they are not there."""
    options = BarrierOptions(
        run=str(folder), pairs=tuple(f"{2 * i}-{2 * i + 1}" for i in range(PAIRS)), alphas=(21.0,), curve_epochs=SMALL["epochs"]
    )  # fmt: skip
    file = folder / barrier.RESULTS[0]
    result = json.loads(file.read_text()) if file.exists() else {}
    if result.get("curve_epochs") != options.curve_epochs or "curves" not in result:
        result = barrier.run(options)
    straight = [
        {**row, "kind": "straight", **{f"{metric}_barrier": row[f"{metric}_barrier_linear"] for metric in ("accuracy", "loss")}}
        for row in result["rows"]
    ]  # fmt: skip
    rows = [row for row in (*straight, *result["curves"]) if row["split"] == "test"]
    return {
        "alphas": result["alphas"], "curve_epochs": result["curve_epochs"], "curve_learning_rate": result["curve_learning_rate"],
        "provenance": result["provenance"], "rows": [{key: row[key] for key in KEPT if key in row} for row in rows],
    }  # fmt: skip


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws the loss along both kinds of paths, a panel for each row."""
    with page(file, 1, len(result["cases"]), sharey=True) as axes:
        for axis, case in zip(axes[0], result["cases"], strict=True):
            for kind, color, style in zip(("straight", "curved"), GREYS, ("-", "--"), strict=False):
                paths = np.array([row["loss_path"] for row in case["rows"] if row["kind"] == kind], float)
                axis.errorbar(case["alphas"], paths.mean(0), paths.std(0, ddof=1), color=color, linestyle=style, capsize=1, label=kind)  # fmt: skip
            axis.set_title(case["row"].replace(", ", ",\n"), loc="left", fontsize=9)
            axis.set_xlabel("from one model to the other", fontsize=8)
        axes[0, 0].set_ylabel("test loss, nats", fontsize=8)
        axes[0, 0].legend(fontsize=7, frameon=False)


HEADS = [
    "networks",
    "accuracy, ends",
    "accuracy barrier, straight",
    "curved",
    "loss barrier, straight",
    "curved",
    "bend",
]


def lines(result: dict[str, Any]) -> list[list[str]]:
    """Returns ends, barriers of both kinds of paths, and how far the curves bend, mean and spread over the pairs, a line for each row."""
    found = []
    for case in result["cases"]:
        straight, curved = ([row for row in case["rows"] if row["kind"] == kind] for kind in ("straight", "curved"))
        ends = [(row["accuracy_path"][0] + row["accuracy_path"][-1]) / 2 for row in straight]
        columns = [ends, *([row[name] for row in rows] for name in ("accuracy_barrier", "loss_barrier") for rows in (straight, curved)),
                   [row["deflection"] for row in curved]]  # fmt: skip
        found.append([case["row"], *(format_mean_std(mean_std(column), 3) for column in columns)])
    return found


def table(result: dict[str, Any]) -> None:
    """Prints what `lines` says."""
    title = "Straight lines and curves between networks trained apart: test set, mean ± std over pairs"
    show_table(Table(title, HEADS, lines(result)))
    console.print("bend: distance of the curve's bend from the middle of the line, over the distance of the ends")

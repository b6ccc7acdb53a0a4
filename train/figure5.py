"""Figure 5 of arXiv 2402.01342: barriers by architecture, with anchors (mask ratio 0.4) and without, on CIFAR-10.

Shows: for which networks anchors lower the barrier at these sizes. On two cores these are first looks at small subsets, and
  the networks are far from trained out: compare rows of one network, not networks.
Hardware: two CPU cores, about 50 minutes, some of it for cells that figure 2 shares. `--full` (whole data set, 30 epochs with
  augmentation, 5 pairs) needs a GPU and has not been run.
Command: `python -m train figure5`
Expected: from different initializations a lower barrier at ratio 0.4 for MLP and CNN, not for ResNet20 and VGG11; with our heavy
  anchors ResNet20 has hardly a barrier. WRN56-2 has seen too little to say anything. Pairs: 5 for MLP, CNN and ResNet20, 2 for
  the other two, whose spread says little.
  ResNet20 and WRN56-2 have layer norm: without norm they hardly train from Flax's initial values.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.report import TITLES
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.terminal import show_table
from train import figure2
from train.cells import MEASURES, cell, find, measured
from train.plots import page

RATIOS = (0.0, 0.4)
SHARED: dict[str, Any] = {"dataset": "cifar10", "ratios": RATIOS, "methods": ("tna",), "test_examples": 2000}
DEEP: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.002, "schedule": "cosine", "batch_size": 32, "seeds": 2}
RECIPE: dict[str, Any] = {"where": "kernel", "anchor_scale": 1.5, "trainable_scale": 0.1, "warmup_epochs": 2.0}
"""Our heavy anchors: the best row of the experiment `anchors`."""
SMALL = {"cifar10_mlp": "MLP 2x200", "cifar10_cnn": "CNN"}
"""Cells of figure 2 that serve here too."""
HEAVY = "_recipe"
CHANCE = 0.1
"""Ending of the name of a network's cell with heavy anchors."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg11": ("VGG11", {"model": "vgg11", "train_examples": 500, "test_examples": 500, "epochs": 8, "alphas": (5.0,), **DEEP,
                        "learning_rate": 0.0005}),
    "resnet20": ("ResNet20, layer norm", {"model": "resnet20", "norm": "layer", "train_examples": 1000,
                                          "test_examples": 500, "epochs": 12, "alphas": (5.0,), **DEEP, "seeds": 5}),
    "resnet20_recipe": ("ResNet20, heavy anchors", {"model": "resnet20", "norm": "layer", "train_examples": 1000,
                                                    "test_examples": 500, "epochs": 12, "alphas": (5.0,), **DEEP, "seeds": 5,
                                                    "init": "different", "ratios": (0.4,), **RECIPE}),
    "wrn56_2": ("WRN56-2, layer norm", {"model": "wrn56_2", "norm": "layer", "train_examples": 128, "test_examples": 200,
                                        "epochs": 4, "alphas": (3.0,), **DEEP}),
}  # fmt: skip
FULL: dict[str, Any] = {"train_examples": None, "test_examples": None, "epochs": 30, "schedule": "cosine",
                        "batch_size": 128, "augment": "crop-flip", "seeds": 5, "alphas": (11.0,)}  # fmt: skip


def run(full: bool = False) -> dict[str, Any]:
    """The cells."""
    cells = {}
    for name, title in SMALL.items():
        cells[name] = {"title": title, **figure2.case(name, full)}
    for name, (title, options) in CASES.items():
        settings = LmcOptions(**{**SHARED, **options, **(FULL if full else {})})
        cells[name] = {"title": title, **cell("figure5" + ("_full" if full else ""), name, settings)}
    return {"cells": cells}


def figure(result: dict[str, Any], file: Path) -> None:
    """Bars of the accuracy barrier for each network, one panel for each kind of initialization."""
    cells = result["cells"]
    names = [name for name in cells if not name.endswith(HEAVY)]
    bars = (("mask ratio 0", 0.0, "", "", "#bbbbbb"), ("mask ratio 0.4", 0.4, "", "///", "#1b6ca8"),
            ("0.4, heavy anchors", 0.4, HEAVY, "...", "#e0a458"))  # fmt: skip
    with page(file, 1, 2, width=4.6, height=3.0, sharey="row") as axes:
        for axis, init in zip(axes[0], TITLES, strict=True):
            for k, (label, ratio, ending, hatch, color) in enumerate(bars):
                lines = [
                    find(cells[name + ending], init=init, ratio=ratio, method="tna") if name + ending in cells else None
                    for name in names
                ]
                if not any(lines):
                    continue
                found = [line["accuracy_barrier"] if line else [np.nan, None] for line in lines]
                values, spread = ([pair[i] if pair[i] is not None else np.nan for pair in found] for i in (0, 1))
                axis.bar(np.arange(len(names)) + 0.28 * (k - 1), values, 0.26, yerr=spread, capsize=2, color=color,
                         hatch=hatch, edgecolor="black", linewidth=0.6, label=label)  # fmt: skip
            axis.set_xticks(range(len(names)), [_label(cells[name], init) for name in names], fontsize=7)
            axis.set_title(TITLES[init], loc="left", fontsize=9)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("test accuracy barrier", fontsize=8)
        axes[0, 1].legend(fontsize=8, frameon=False, loc="upper right")


def _label(case: dict[str, Any], init: str) -> str:
    """The network, its pairs, and whether its ends are no better than guessing, where no barrier is nothing to be glad of."""
    lines = [line for line in case["summary"] if line["init"] == init and line["n"]]
    chance = max(line["accuracy_ends"][0] for line in lines) < 1.2 * CHANCE
    pairs = f"{min(line['n'] for line in lines)} pairs" + (", at chance" if chance else "")
    title: str = case["title"]
    return title.replace(", ", "\n") + f"\n{pairs}"


def table(result: dict[str, Any]) -> None:
    """Every cell's means."""
    rows = []
    for case in result["cells"].values():
        config = case["config"]
        chosen = [line for line in case["summary"] if line["ratio"] in RATIOS and line["method"] == "tna"]
        for line in chosen:
            cells = [measured(line, measure) for measure in MEASURES]
            rows.append([case["title"], str(config["train_examples"] or 50_000), str(config["epochs"]), line["init"],
                         f"{line['ratio']:g}", str(line["n"]), *cells])  # fmt: skip
    heads = ["network", "examples", "epochs", "initialization", "ratio", "n"]
    heads += [measure.replace("_", " ") for measure in MEASURES]
    show_table(Table("Figure 5: CIFAR-10, test set, mean ± std over pairs", heads, rows, keys=5))

"""Different initializations, shared anchors, 1 to 10 layers: accuracy of the average of two networks, the best recipe.

Shows: how far anchors alone bring the average of two MLPs of width 128 that start from different values, beside what matching
  after training reaches (Jordan et al. 2023, arXiv 2211.08403: weight matching + REPAIR). Anchors are shared here and not
  there, so the two are not one setting: those networks were trained without knowing of each other.
Hardware: two CPU cores, about 15 minutes.
Command: `python -m train depth`
Expected: at the better of the two ratios a midpoint above 97.51 / 96.86 / 96.38 / 95.87 / 95.31 % at 1 / 2 / 3 / 5 / 10 layers. Mean and sample standard deviation
  over 5 pairs.
Data: the whole of MNIST, 8 epochs, SGD 0.05 with momentum 0.9, cosine schedule after a warm-up of 2 epochs, batch 64.
Recipe (see `train.anchors`): 40 or 80 % of each kernel anchored (both are shown: the deeper, the more helps) at 1.5 times its initial values; what is trained starts at 0.1
  times its own, different initial values; biases train. So the networks start a tenth as far apart as usual: this is what
  buys the result, beside the anchors, and `train.anchors` shows each part alone.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.terminal import show_table
from train.cells import MEASURES, cell, find, measured
from train.plots import GREYS, page

LAYERS = (1, 2, 3, 5, 10)
RATIOS = (0.4, 0.8)
RECIPE: dict[str, Any] = {"ratios": RATIOS, "where": "kernel", "anchor_scale": 1.5, "trainable_scale": 0.1,
                          "warmup_epochs": 2.0}  # fmt: skip
DEFAULT: dict[str, Any] = {"ratios": (0.0, 0.4)}
SHARED: dict[str, Any] = {"dataset": "mnist", "width": 128, "epochs": 8, "batch_size": 64, "learning_rate": 0.05, "schedule": "cosine",
                          "init": "different", "methods": ("tna",), "alphas": (5.0,)}  # fmt: skip
MATCHED = {"unmatched": (0.396, 0.409, 0.153, 0.106, 0.097), "matched": (0.9682, 0.9622, 0.9367, 0.9353, 0.8118),
           "matched + REPAIR": (0.9751, 0.9686, 0.9638, 0.9587, 0.9531)}  # fmt: skip
"""Of arXiv 2211.08403: MNIST MLP of width 128, ends 0.9807, test accuracy at the midpoint for the same numbers of layers."""


def run(full: bool = False) -> dict[str, Any]:
    """The cells; `full` adds the paper's default anchors and none."""
    cells = {}
    for layers in LAYERS:
        settings = LmcOptions(**SHARED, depth=layers, **RECIPE)
        cells[f"recipe_h{layers}"] = {"layers": layers, "recipe": True, **cell("depth", f"recipe_h{layers}", settings)}
        if full:
            settings = LmcOptions(**SHARED, depth=layers, **DEFAULT)
            cells[f"default_h{layers}"] = {
                "layers": layers,
                "recipe": False,
                **cell("depth", f"default_h{layers}", settings),
            }
    return {"matched_after_training": {"source": "arXiv 2211.08403", "layers": LAYERS, **MATCHED}, "cells": cells}


def figure(result: dict[str, Any], file: Path) -> None:
    """Midpoint accuracy against depth."""
    with page(file, 1, 1, width=5.2, height=3.8) as axes:
        axis = axes[0, 0]
        x = np.arange(len(LAYERS))
        cases = [case for case in result["cells"].values() if case["recipe"]]
        for ratio, color, marks in zip(RATIOS, GREYS, ("os", "D^"), strict=False):
            lines = [find(case, ratio=ratio) for case in cases]
            for measure, style, mark in zip(("accuracy_ends", "accuracy_midpoint"), ("-", "--"), marks, strict=True):
                values = np.array([line[measure] if line else [np.nan, np.nan] for line in lines], float)
                axis.errorbar(x, *values.T, linestyle=style, marker=mark, markersize=4, capsize=2, color=color,
                              label=f"anchors {ratio:g}, {measure.split('_')[1]}")  # fmt: skip
        for name, mark in (("matched", "v"), ("matched + REPAIR", "^")):
            axis.plot(
                x, MATCHED[name], linestyle=":", marker=mark, markersize=4, color="black", label=f"{name} (theirs)"
            )
        axis.set_xticks(x, map(str, LAYERS))
        axis.set_ylim(0.9, 1)
        axis.set_xlabel("hidden layers (MNIST, width 128)", fontsize=8)
        axis.set_ylabel("test accuracy", fontsize=8)
        axis.set_title("anchors are shared here, and not in the matched networks", loc="left", fontsize=8)
        axis.legend(fontsize=7, frameon=False, loc="lower left")


def table(result: dict[str, Any]) -> None:
    """Every depth beside the numbers of others."""
    rows = []
    for case in result["cells"].values():
        theirs = MATCHED["matched + REPAIR"][LAYERS.index(case["layers"])]
        for line in case["summary"]:
            cells = [measured(line, measure) for measure in MEASURES]
            name = "recipe" if case["recipe"] else "default"
            rows.append([str(case["layers"]), name, f"{line['ratio']:g}", str(line["n"]), *cells, f"{theirs:.4f}"])
    measures = [measure.replace("_", " ") for measure in MEASURES]
    heads = ["layers", "anchors", "ratio", "n", *measures, "matched + REPAIR (theirs)"]
    title = "MNIST, MLP of width 128, different initialization: test set, mean ± std over pairs"
    show_table(Table(title, heads, rows, keys=3))

"""Figure 4 of arXiv 2402.01342: barriers against depth and width of an MLP, with anchors and without.

Shows: how the barrier grows with depth and falls with width, and what anchors do at each size.
Hardware: two CPU cores, about 15 minutes; `--full` takes the whole of MNIST and 20 epochs.
Command: `python -m train figure4`
Expected: the barrier of ratio 0 grows with depth; anchors (0.4, 0.8) lower it at every size from different
  initializations; from one, MNIST has next to none below 8 layers. Mean and sample standard deviation over 5 pairs.
Data: MNIST, 5,000 training examples in a fixed random order, 6 epochs; the whole test set.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.report import TITLES
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.terminal import show_table
from train.cells import MEASURES, cell, find, measured
from train.plots import GREYS, MARKS, page

DEPTHS = (1, 2, 3, 4, 5, 6, 8)
WIDTHS = (25, 50, 100, 200, 400, 800, 1600)
DEPTH, WIDTH = 2, 200
"""Of the other sweep."""
RATIOS = (0.0, 0.4, 0.8)
SHARED: dict[str, Any] = {"dataset": "mnist", "train_examples": 5000, "epochs": 6, "batch_size": 64, "ratios": RATIOS,
                          "methods": ("tna",), "learning_rate": 0.05, "alphas": (5.0,)}  # fmt: skip
FULL: dict[str, Any] = {"train_examples": None, "epochs": 20, "schedule": "cosine"}


def run(full: bool = False) -> dict[str, Any]:
    """The cells."""
    sizes = sorted({(depth, WIDTH) for depth in DEPTHS} | {(DEPTH, width) for width in WIDTHS})
    cells = {}
    for depth, width in sizes:
        name = f"h{depth}_w{width}"
        settings = LmcOptions(**{**SHARED, "depth": depth, "width": width, **(FULL if full else {})})
        cells[name] = cell("figure4" + ("_full" if full else ""), name, settings)
    return {"cells": cells}


def figure(result: dict[str, Any], file: Path) -> None:
    """Barriers against depth (left) and width (right), a row for each kind of initialization."""
    sweeps = (("depth", DEPTHS, [f"h{depth}_w{WIDTH}" for depth in DEPTHS], f"hidden layers (width {WIDTH})"),
              ("width", WIDTHS, [f"h{DEPTH}_w{width}" for width in WIDTHS], f"width ({DEPTH} hidden layers)"))  # fmt: skip
    with page(file, 2, 2, sharey="row") as axes:
        for row, init in zip(axes, TITLES, strict=True):
            for axis, (_, sizes, names, label) in zip(row, sweeps, strict=True):
                for k, ratio in enumerate(RATIOS):
                    lines = [find(result["cells"][name], init=init, ratio=ratio, method="tna") for name in names]
                    values = np.array([line["accuracy_barrier"] if line else [np.nan, np.nan] for line in lines], float)
                    axis.errorbar(sizes, *values.T, marker=MARKS[k], markersize=4, capsize=2, color=GREYS[k],
                                  linestyle=("-", "--", ":")[k], label=f"mask ratio {ratio:g}")  # fmt: skip
                axis.set_title(TITLES[init], loc="left", fontsize=8)
                axis.set_xlabel(label, fontsize=8)
                if axis is row[-1]:
                    axis.set_ylim(bottom=0)  # of the row
            row[0].set_ylabel("test accuracy barrier", fontsize=8)
            row[1].set_xscale("log")
            row[1].set_xticks(WIDTHS, map(str, WIDTHS))
            row[1].minorticks_off()
        axes[0, 0].legend(fontsize=7, frameon=False)


def table(result: dict[str, Any]) -> None:
    """Every cell's means."""
    rows = []
    for case in result["cells"].values():
        for line in case["summary"]:
            cells = [measured(line, measure) for measure in MEASURES]
            size = f"{case['config']['depth']}x{case['config']['width']}"
            rows.append([size, line["init"], f"{line['ratio']:g}", str(line["n"]), *cells])
    heads = ["MLP", "initialization", "ratio", "n", *(measure.replace("_", " ") for measure in MEASURES)]
    show_table(Table("Figure 4: MNIST, test set, mean ± std over pairs", heads, rows, keys=3))

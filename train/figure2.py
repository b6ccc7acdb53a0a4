"""Figure 2 of arXiv 2402.01342: accuracy of two networks and of their average against the mask ratio, TNA beside pruning.

Shows: the barrier falls as the share of anchored weights rises; random pruning at initialization lowers it too, from different
  initializations far less, and costs end accuracy at high ratios.
Hardware: two CPU cores, about 35 minutes; `--full` (whole data sets, more epochs, wider grid) is meant for a GPU.
Command: `python -m train figure2`
Expected: Fashion-MNIST MLP 4x512, same initialization: the barrier of ratio 0 falls at least threefold at ratio 0.4, and end
  accuracy does not fall; at 0.9 pruning costs end accuracy where anchors do not. Mean and sample standard deviation over 5 pairs in each cell.
Data: the first `train_examples` of a fixed random order (see each cell's `config`), the whole test sets.
"""

from pathlib import Path
from typing import Any

from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.lmc.report import NAMES, TITLES
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.terminal import show_table
from train.cells import MEASURES, cell, find, measured
from train.plots import ends_and_midpoint, page

RATIOS, FEW = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9), (0.0, 0.4, 0.8)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mnist_mlp": ("MNIST, MLP 2x200", {"dataset": "mnist", "depth": 2, "width": 200, "train_examples": 10_000, "epochs": 8,
                                       "batch_size": 64}),
    "fashion_mlp": ("Fashion-MNIST, MLP 4x512", {"dataset": "fashion_mnist", "width": 512, "train_examples": 10_000,
                                                 "epochs": 6, "batch_size": 64}),
    "cifar10_mlp": ("CIFAR-10, MLP 2x200", {"dataset": "cifar10", "depth": 2, "width": 200, "train_examples": 5000,
                                            "epochs": 8, "batch_size": 64, "learning_rate": 0.02, "alphas": (5.0,)}),
    "cifar10_cnn": ("CIFAR-10, CNN", {"dataset": "cifar10", "model": "cnn", "train_examples": 2000, "test_examples": 2000,
                                      "epochs": 10, "batch_size": 64, "learning_rate": 0.05, "ratios": FEW, "alphas": (5.0,),
                                      "methods": ("tna",)}),
}  # fmt: skip
FULL: dict[str, Any] = {
    "train_examples": None, "test_examples": None, "epochs": 30, "schedule": "cosine", "methods": ("tna", "prune"),
    "ratios": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
}  # fmt: skip


def case(name: str, full: bool = False) -> dict[str, Any]:
    """The cell of a case."""
    settings = LmcOptions(**{"ratios": RATIOS, **CASES[name][1], **(FULL if full else {})})
    return cell("figure2" + ("_full" if full else ""), name, settings)


def run(full: bool = False) -> dict[str, Any]:
    """The cells."""
    return {"cells": {name: {"title": title, **case(name, full)} for name, (title, _) in CASES.items()}}


def figure(result: dict[str, Any], file: Path) -> None:
    """A row for each case, a column for each kind of initialization."""
    with page(file, len(result["cells"]), 2) as axes:
        for row, case in zip(axes, result["cells"].values(), strict=True):
            for axis, init in zip(row, TITLES, strict=True):
                for method in case["config"]["methods"]:
                    lines = [line for line in case["summary"] if line["init"] == init and line["method"] == method]
                    ends_and_midpoint(axis, lines, [line["ratio"] for line in lines], method)
                axis.set_title(f"{case['title']}\n{TITLES[init]}", loc="left", fontsize=8)
            row[0].set_ylabel("test accuracy", fontsize=8)
        for axis in axes[-1]:
            axis.set_xlabel("mask ratio (share of anchored or pruned weights)", fontsize=8)
        axes[0, 1].legend(fontsize=7, frameon=False)


def table(result: dict[str, Any]) -> None:
    """Every cell's means."""
    rows = []
    for case in result["cells"].values():
        for line in case["summary"]:
            if line["ratio"] or line["method"] == "tna":
                found = find(case, **{key: line[key] for key in ("init", "method", "ratio")})
                name = NAMES[line["method"]] if line["ratio"] else "no anchors"
                rows.append([case["title"], line["init"], name, f"{line['ratio']:g}", str(line["n"]),
                             *(measured(found, measure) for measure in MEASURES)])  # fmt: skip
    heads = ["case", "initialization", "method", "ratio", "n", *(measure.replace("_", " ") for measure in MEASURES)]
    show_table(Table("Figure 2: test set, mean ± std over pairs", heads, rows, keys=4))

"""Anchors during training against matching after it: one row for each method, and both together.

Shows: accuracy halfway between two networks from different initial values: plain; permuted by weight or activation matching
  (Ainsworth et al. 2023, arXiv 2209.04836); with REPAIR (Jordan et al. 2023, arXiv 2211.08403); trained with shared anchors; and
  matching on top of anchors, with the sweeps it takes and the share of units it moves.
Hardware: two CPU cores, about 4 minutes.
Command: `python -m fusion rivals`
Expected: matching + REPAIR and anchors both close most of the barrier; on top of anchors weight matching moves few units or none.
  Mean and sample standard deviation over 5 pairs (10 networks; the anchors of a population are drawn once).
Data: MNIST MLP 3x128, 10,000 examples, 10 epochs, SGD 0.1 with cosine schedule; the whole test set.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.json_files import to_json
from tna_jax.programs.population.load import open_runs
from tna_jax.programs.rebasin.matches import match_pairs
from tna_jax.programs.rebasin.options import RebasinOptions
from tna_jax.programs.rebasin.run import compare, repairable_of
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import MEASURES, measured, populated
from train.plots import page

POPULATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("no anchors", {"ratio": 0.0}),
    "tna": ("TNA, ratio 0.4", {"ratio": 0.4}),
    "recipe": ("TNA, the recipe", {"ratio": 0.4, "where": "kernel", "anchor_scale": 1.5, "trainable_scale": 0.1,
                                   "warmup_epochs": 2.0}),
}  # fmt: skip
SHARED: dict[str, Any] = {"dataset": "mnist", "train_examples": 10_000, "depth": 3, "width": 128, "epochs": 10,
                          "batch_size": 64, "schedule": "cosine", "members": 10, "init": "different"}  # fmt: skip
FULL: dict[str, Any] = {"train_examples": None}
PAIRS = np.arange(10, dtype=np.int32).reshape(5, 2)


def run(full: bool = False) -> dict[str, Any]:
    """Trains the populations and walks every pair before and after matching."""
    lines = []
    for name, (title, options) in POPULATIONS.items():
        folder = populated("rivals" + ("_full" if full else ""), name, {**SHARED, **options, **(FULL if full else {})})
        opened = open_runs((str(folder),), None)
        settings = RebasinOptions(runs=(str(folder),))
        matches = match_pairs(opened, PAIRS, settings)
        compared = compare(opened, PAIRS, matches, settings, repairable_of(opened))
        rows = [row for row in compared if row["split"] == "test"]
        for kind in dict.fromkeys(row["kind"] for row in rows):
            lines.append({"population": title, "kind": kind, **_line([row for row in rows if row["kind"] == kind])})
    contents: dict[str, Any] = to_json({"config": SHARED, "lines": lines})
    return contents


def _line(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over pairs of what a method reaches and takes."""

    def spread(values: Iterable[Any]) -> list[float | None]:
        return list(mean_std(values))

    facts = {measure: spread([np.mean(row[measure]) for row in rows]) for measure in MEASURES}
    took: dict[str, Any] = {
        key: spread([row[key] for row in rows]) for key in ("sweeps", "moved", "seconds") if key in rows[0]
    }
    made: dict[str, Any] = {"n": len(rows), **facts, **took}
    return made


def figure(result: dict[str, Any], file: Path) -> None:
    """The accuracy barrier of each method, a color for each population."""
    lines = result["lines"]
    labels = [f"{line['population']}: {line['kind']}" for line in lines]
    shades = {
        title: shade for (title, _), shade in zip(POPULATIONS.values(), ("#888888", "#8fb4d3", "#1b6ca8"), strict=True)
    }
    with page(file, 1, 1, width=6.2, height=0.26 * len(lines) + 0.9) as axes:
        axis = axes[0, 0]
        for y, line in enumerate(lines):
            mean, spread = line["accuracy_barrier"]
            axis.errorbar(mean, y, xerr=spread, fmt="o", markersize=5, capsize=2, color=shades[line["population"]],
                          markeredgecolor="black", markeredgewidth=0.6)  # fmt: skip
        axis.set_yticks(range(len(labels)), labels)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlabel("test accuracy barrier, mean ± std over pairs", fontsize=8)
        axis.tick_params(labelsize=7)


def table(result: dict[str, Any]) -> None:
    """A row for each method."""
    rows = []
    for line in result["lines"]:
        took = [f"{line[key][0]:.3g}" if key in line else "-" for key in ("sweeps", "moved", "seconds")]
        cells = [measured(line, measure) for measure in MEASURES]
        rows.append([line["population"], line["kind"], str(line["n"]), *cells, *took])
    measures = [measure.replace("_", " ") for measure in MEASURES]
    heads = ["networks", "after training", "n", *measures, "sweeps", "units moved", "seconds"]
    show_table(Table("MNIST MLP 3x128, different initialization: test set, mean ± std over pairs", heads, rows, keys=2))

"""Figure 4's landscapes (arXiv 2402.01342): loss on the plane through three networks, without anchors and with.

Shows: three networks trained apart lie in one valley when they share anchors, and behind a ridge when they do not.
Hardware: two CPU cores, about 3 minutes.
Command: `python -m fusion landscape`
Expected: from different initializations the plane without anchors has three separate minima, with heavy anchors (the recipe of
  `train.anchors`) one. One draw of three networks: a picture, not a statistic (those are in figure2 and anchors).
Data: Fashion-MNIST MLP 4x128, 10,000 examples, 8 epochs; the loss is that of the first 2,000 test images.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.landscape.options import LandscapeOptions
from tna_jax.programs.landscape.report import plane as plane_figure
from tna_jax.programs.landscape.run import survey
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.measures import LOSS
from tna_jax.programs.reports.png import contour_levels, contours
from tna_jax.programs.reports.terminal import show_table
from tna_jax.programs.runs.folder import Run
from train.cells import populated
from train.plots import page

RECIPE: dict[str, Any] = {"anchor_scale": 1.5, "trainable_scale": 0.1, "where": "kernel", "warmup_epochs": 2.0}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "same_none": ("same initialization, no anchors", {"init": "same", "ratio": 0.0}),
    "same_tna": ("same initialization, mask ratio 0.4", {"init": "same", "ratio": 0.4}),
    "different_none": ("different initialization, no anchors", {"init": "different", "ratio": 0.0}),
    "different_tna": ("different, ratio 0.4, the recipe", {"init": "different", "ratio": 0.4, **RECIPE}),
}
SHARED: dict[str, Any] = {"dataset": "fashion_mnist", "train_examples": 10_000, "epochs": 8, "batch_size": 64, "members": 3,
                          "learning_rate": 0.05}  # fmt: skip
FULL: dict[str, Any] = {"train_examples": None, "epochs": 30, "schedule": "cosine"}


def run(full: bool = False) -> dict[str, Any]:
    """The planes; a finished training is not done again."""
    made = {}
    for name, (title, options) in CASES.items():
        folder = populated(
            "landscape" + ("_full" if full else ""), name, {**SHARED, **options, **(FULL if full else {})}
        )
        plane = survey(Run.open(str(folder)), LandscapeOptions(run=str(folder), points=31))
        kept = {key: plane[key] for key in ("run", "network", "models", "lengths", "x", "y", "loss", "examples")}
        made[name] = {"title": title, **kept, "loss": np.round(plane["loss"], 5)}
    return {"planes": made}


def figure(result: dict[str, Any], file: Path) -> None:
    """The four planes with the same levels."""
    planes = list(result["planes"].values())
    everything = np.concatenate([np.ravel([v for row in plane["loss"] for v in row]) for plane in planes]).astype(float)
    levels = contour_levels(everything, "loss", 10)
    with page(file, 2, 2, width=3.8, height=3.6) as axes:
        for axis, plane in zip(axes.ravel(), planes, strict=True):
            filled = contours(axis, plane_figure(plane, LOSS), levels, numbers=False)
            axis.grid(visible=False)
            axis.set_title(plane["title"], loc="left", fontsize=8)
            axis.set_xlabel("distance of weights (each plane its own scale)", fontsize=8)
        bar = axes[0, 0].figure.colorbar(filled, ax=axes, shrink=0.6, format="%.2f")
        bar.set_label("test loss; markers: the three networks", fontsize=8)
        bar.ax.tick_params(labelsize=8)


def table(result: dict[str, Any]) -> None:
    """The three networks of each plane, and the loss at their centroid."""
    rows = []
    for plane in result["planes"].values():
        losses = ", ".join(f"{model['loss']:.3f}" for model in plane["models"])
        distances = ", ".join(f"{length:.1f}" for length in plane["lengths"])
        rows.append([plane["title"], losses, distances, f"{_highest(plane):.3f}"])
    heads = ["networks", "losses", "distances", "highest loss inside the triangle of the three"]
    show_table(Table("test loss on the planes", heads, rows))


def _highest(plane: dict[str, Any]) -> float:
    corners = np.array([[model["x"], model["y"]] for model in plane["models"]])
    points = np.stack(np.meshgrid(plane["x"], plane["y"]), -1).reshape(-1, 2)
    system = np.concatenate([corners.T, np.ones((1, 3))])
    weights = np.linalg.solve(system, np.concatenate([points.T, np.ones((1, len(points)))]))
    return float(np.array(plane["loss"], float).ravel()[(weights >= 0).all(0)].max())

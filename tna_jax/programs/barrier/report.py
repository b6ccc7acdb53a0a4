"""What `tna barrier` draws: the matrix of barriers between the models, and every path."""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports.pair_matrix import matrix, number


def figure(result: dict[str, Any], file: Path, split: str = "test") -> None:
    """Draws the accuracy barrier of each pair of models as a matrix, and accuracy along each path with the mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if row["split"] == split]
    models = len(result["models"])
    values = {tuple(row["pair"]): number(row["accuracy_barrier_linear"]) for row in rows}
    grid, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    matrix(left, grid, models, values)
    left.set_title(f"{split} accuracy barrier", loc="left", fontsize=10)
    curves = np.array([[number(v) for v in row["accuracy_path"]] for row in rows])
    for curve in curves:
        right.plot(result["alphas"], curve, color="#1b6ca8", alpha=max(0.15, 1 / len(curves)), linewidth=1)
    complete = curves[np.isfinite(curves).all(axis=1)]
    if len(complete):
        right.plot(
            result["alphas"],
            complete.mean(0),
            color="black",
            linewidth=2,
            label=f"mean of {plural(len(complete), 'pair')}",
        )
        right.legend(fontsize=8, frameon=False, loc="lower left")
    right.set(xlabel="α, from one model (0) to the other (1)", ylabel=f"{split} accuracy")
    right.set_title("along the paths", loc="left", fontsize=10)
    right.grid(alpha=0.25, linewidth=0.6)
    right.spines[["top", "right"]].set_visible(False)
    grid.suptitle(checkpoint_status.title(result), fontsize=11)
    grid.savefig(file, dpi=130)
    plt.close(grid)

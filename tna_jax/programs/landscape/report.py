"""What `tna landscape` draws: contours of the loss on a plane, readable in black and white."""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.population import checkpoint_status

MARKS = "os^"


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws the loss (left) and the accuracy (right) with labelled contours and the three models."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    grid, axes = plt.subplots(1, 2, figsize=(9, 4.8), layout="constrained")
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        contours(axis, result, measure)
        axis.set_title(f"test {measure}", loc="left", fontsize=10)
        axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    grid.suptitle(checkpoint_status.title(result), fontsize=11)
    grid.savefig(file, dpi=150)
    plt.close(grid)


def contours(axis, result: dict[str, Any], measure: str, levels: np.ndarray | None = None, numbers: bool = True) -> Any:
    """The contours of `loss` or `accuracy` in greys (light: good) with numbers on the lines, and the models on them.

    Returns:
      The filled contours, for a colour bar.

    Losses far above those of the models all look alike: contours are closest near the models, evenly in ratio for the loss.
    """
    values = np.array([[np.nan if v is None else v for v in row] for row in result[measure]], float)
    if levels is None:
        levels = steps(values, measure)
    shade = "Greys" if measure == "loss" else "Greys_r"
    filled = axis.contourf(result["x"], result["y"], values, levels=levels, cmap=shade, extend="max", alpha=0.55,
                  norm="log" if measure == "loss" else None)  # fmt: skip
    lines = axis.contour(result["x"], result["y"], values, levels=levels, colors="black", linewidths=0.7)
    if numbers:
        axis.clabel(lines, fontsize=7, fmt="%.3g")
    for model, mark in zip(result["models"], MARKS, strict=True):
        axis.plot(model["x"], model["y"], mark, color="#c7522a", markeredgecolor="black", markersize=7,
                  label=f"{model['name']} ({measure} {model[measure]:.3g})")  # fmt: skip
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8)
    return filled


def steps(values: np.ndarray, measure: str, count: int = 9) -> np.ndarray:
    """Levels from the lowest to the 95 % quantile: evenly spaced in ratio for the loss, in difference for the accuracy."""
    finite = values[np.isfinite(values)]
    if measure == "accuracy":
        return np.linspace(finite.min(), finite.max() + 1e-6, count)
    low = max(finite.min(), 1e-6)
    return np.geomspace(low, max(np.quantile(finite, 0.95), low * 1.01), count)

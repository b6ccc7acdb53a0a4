"""A matrix of what is between every two models, drawn."""

from typing import Any

import numpy as np


def number(value: float | None) -> float:
    """A number of a JSON file, whose null stands for one that is not finite."""
    return np.nan if value is None else value


def matrix(
    axes: Any, grid: Any, models: int, values: dict[tuple[int, int], float], highest: float | None = None
) -> None:
    """Draws a symmetric matrix of the pairs' values, with numbers where there is room."""
    filled = np.full((models, models), np.nan)
    for (i, j), value in values.items():
        filled[i, j] = filled[j, i] = value
    top = max(np.nanmax(filled, initial=0), 0.01) if highest is None else highest
    image = axes.imshow(filled, cmap="viridis_r", vmin=0, vmax=top)
    axes.set(xlabel="model", ylabel="model")
    if models <= 12:
        axes.set_xticks(range(models))
        axes.set_yticks(range(models))
        for i, j in zip(*np.nonzero(np.isfinite(filled)), strict=True):
            colour = "white" if filled[i, j] > top / 2 else "black"
            axes.text(j, i, f"{filled[i, j]:.3f}", ha="center", va="center", fontsize=7, color=colour)
    grid.colorbar(image, ax=axes, shrink=0.85)

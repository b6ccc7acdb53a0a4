"""Points of a path between two models: which grids hold its ends and its middle. Needs NumPy only."""

from typing import Any

import numpy as np


def grid(points: int = 11) -> np.ndarray:
    """Returns (points,) evenly spaced alphas, float32, that hold 0, 1/2 and 1 exactly; ValueError unless `points` is odd and at least 3."""
    if points < 3 or points % 2 == 0:
        raise ValueError(f"a grid that holds 0, 1/2 and 1 has an odd number of points, at least 3; got {points}")
    return np.linspace(0, 1, points).astype(np.float32)


def check_alphas(alphas: Any) -> np.ndarray:
    """Returns the grid as (A,) float32.

    Raises:
      ValueError: not increasing, outside [0, 1], or without 0, 1/2 or 1.
    """
    points: np.ndarray = np.asarray(alphas, np.float32)
    if points.ndim != 1 or not np.all(np.diff(points) > 0):
        raise ValueError(f"the alphas must be an increasing list, got {points.tolist()}")
    missing = [text for text, value in (("0", 0), ("1/2", 0.5), ("1", 1)) if not np.any(points == value)]
    if missing or points[0] != 0 or points[-1] != 1:
        raise ValueError(
            f"the alphas must lie in [0, 1] and hold 0, 1/2 and 1 (missing: {', '.join(missing) or 'none'}); "
            f"got {points.tolist()}"
        )
    return points

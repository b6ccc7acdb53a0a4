"""How near models lie to one another and to their average, from inner products that a merge sums while it reads them."""

import dataclasses
import math
from typing import Any

import numpy as np

FAR = 0.2
"""Models whose weights have a smaller cosine are not told to be close: fine-tuned from one model it is above 0.9, trained apart near 0."""


@dataclasses.dataclass
class Similarity:
    """Inner products of M models: of the first with all, and of what the others differ from it by.

    Differences are summed and not the models themselves, for the distance of models that are close would be lost in rounding.
    """

    first: np.ndarray
    """(M,) float64: of the first model with itself, and with the difference of each other one."""
    differences: np.ndarray
    """(M, M) float64: of the differences; the first's row and column are 0."""

    @classmethod
    def of(cls, models: int) -> "Similarity":
        """Returns the sums of no entries."""
        return cls(np.zeros(models), np.zeros((models, models)))

    def add(self, products: np.ndarray) -> None:
        """Adds the inner products (M, M) of [first, differences ...] in a piece."""
        self.first += products[0]
        self.differences[1:, 1:] += products[1:, 1:]

    def distance(self, i: int, j: int) -> float:
        """Returns the Euclidean distance of two models."""
        d = self.differences
        return math.sqrt(max(d[i, i] - 2 * d[i, j] + d[j, j], 0))

    def product(self, i: int, j: int) -> float:
        """Returns the inner product of two models."""
        along = [0.0 if k == 0 else float(self.first[k]) for k in (i, j)]
        return float(self.first[0] + sum(along) + self.differences[i, j])

    def cosine(self, i: int, j: int) -> float:
        """Returns the cosine of two models; NaN where one is zero, or not finite."""
        norms = math.sqrt(max(self.product(i, i), 0) * max(self.product(j, j), 0))
        cosine = self.product(i, j) / norms if norms else math.nan
        return math.nan if math.isnan(cosine) else min(1.0, max(-1.0, cosine))

    def distance_to_mean(self, i: int, weights: np.ndarray) -> float:
        """Returns the distance of a model to the average; relative to the average's length it says how far models are apart."""
        d, w = self.differences, weights
        return math.sqrt(max(float(d[i, i] - 2 * d[i] @ w + w @ d @ w), 0))

    def summary(self, weights: np.ndarray) -> dict[str, Any]:
        """Returns what a results file holds; NaN, which is null there, where a model is not finite (the first: of all).

        Args:
          weights: (M,) of the models in the average, of sum 1.
        """
        models = range(len(self.first))
        w = weights / weights.sum()
        with np.errstate(invalid="ignore"):
            mean = sum(w[i] * w[j] * self.product(i, j) for i in models for j in models)
            return {
                "tensors": "floating-point, of two or more axes",
                "cosines": [[1.0 if i == j else self.cosine(i, j) for j in models] for i in models],
                "distances": [[self.distance(i, j) for j in models] for i in models],
                "distance_to_mean": [self.distance_to_mean(i, w) for i in models],
                "length_of_mean": math.sqrt(max(mean, 0)),
            }


def warning(summary: dict[str, Any], names: list[str]) -> str:
    """Says which models are not close; empty if all are."""
    far = [
        f"{names[i]} and {names[j]} ({summary['cosines'][i][j]:.3f})"
        for i in range(len(names)) for j in range(i) if summary["cosines"][i][j] < FAR
    ]  # fmt: skip
    if not far:
        return ""
    shown = ", ".join(far[:5]) + (f" and {len(far) - 5} more pairs" if len(far) > 5 else "")
    return (
        f"These models are not close (cosine of their weights): {shown}. Models that were trained apart, from other initial "
        "values, lose most of their accuracy when they are averaged; fine-tune both from one model, or match their hidden units first."
    )

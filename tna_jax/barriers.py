"""The metrics along a path between two models, and its barrier.

>>> alphas = np.linspace(0, 1, 3)
>>> path = Path(alphas, Metrics(np.array([1.0, 3.0, 2.0]), np.array([8, 4, 6]), np.array([8, 8, 8])))
>>> float(barrier(path)), float(barrier(path, metric="loss"))  # 0.875 - 0.5 and 0.375 - 0.1875
(0.375, 0.1875)
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from tna_jax.alphas import check_alphas
from tna_jax.metrics import AnyMetrics, Metrics

BarrierKind = Literal["linear", "relative", "midpoint", "ends", "worst"]


class Path(NamedTuple):
    """Metrics along the lines between P pairs of models, at A points each."""

    alphas: Any
    """(A,) increasing, 0 at the first model and 1 at the second."""
    metrics: AnyMetrics
    """Leaves (P, A), or (..., A) in general."""

    def value(self, name: str) -> Any:
        """(..., A) the metric of that name; ValueError for a name there is not."""
        return self.metrics.value(name)

    @property
    def loss(self) -> Any:
        """(..., A) mean loss; of classification cross-entropy, in nats."""
        return self.metrics.loss

    @property
    def accuracy(self) -> Any:
        """(..., A) share of correct examples, in [0, 1]; ValueError for objectives without it."""
        return self.metrics.accuracy


def barrier(
    path: Path, kind: BarrierKind = "linear", metric: str | None = None, larger_is_better: bool | None = None
) -> Float[Any, "..."]:  # of NumPy or JAX, as the path
    """Computes how much worse the models between two ends are than the ends: 0 for a flat path, larger is worse.

    With L(a) the loss at alpha a, or 1 - the metric where larger is better (of accuracy: the error),
    and `lin(a) = (1 - a) L(0) + a L(1)`:

    | kind | definition | source |
    | --- | --- | --- |
    | `linear` | max over a of L(a) - lin(a) | Entezari et al. 2022, arXiv 2110.06296 |
    | `relative` | max over a of that gap divided by the linear value at a: of the accuracy, or of the loss | code of arXiv 2402.01342's authors |
    | `midpoint` | L(1/2) - lin(1/2) | |
    | `ends` | max over a of L(a) - (L(0) + L(1)) / 2 | Git Re-Basin, arXiv 2209.04836 |
    | `worst` | max over a of L(a), for accuracy the largest error | Lim et al. 2024, arXiv 2405.20231 |

    Laws: 0 (but for `worst`) where both ends are one model; `linear` and `relative` are at least 0; reversing a path
    changes nothing.

    Args:
      path: a `Path` with metrics (..., A), NumPy or JAX.
      kind: one of the table.
      metric: `accuracy` (result as a share, 0.1 = ten points), `loss` (in nats), or any name of the objective's metrics; default:
        accuracy for classification, else the loss.
      larger_is_better: of that metric; default: as the objective says.

    Returns:
      (...,) of the path's dtype; non-finite where the path is, and NaN for every metric where the loss of an end is NaN: beside a diverged
      model there is no barrier (its accuracy is a number all the same, 0).

    Raises:
      ValueError: an unknown kind or metric, or a grid without 0, 1/2 and 1.
      TypeError: what is given is no `Path`.
    """
    if not isinstance(path, Path):
        several = (
            f"; these are several, by name: barrier(paths[{next(iter(path))!r}])"
            if path and isinstance(path, dict)
            else ""
        )
        raise TypeError(f"barrier takes a Path, got {type(path).__name__}{several}")
    if metric is None:
        metric = "accuracy" if isinstance(path.metrics, Metrics) else "loss"
    if kind not in get_args(BarrierKind):
        raise ValueError(f"unknown barrier {kind!r}: kinds are {', '.join(get_args(BarrierKind))}")
    if metric not in path.metrics.names:
        raise ValueError(f"this path has no metric {metric!r}: it has {', '.join(path.metrics.names)}")
    alphas = check_alphas(path.alphas)
    larger = path.metrics.metric(metric).larger_is_better if larger_is_better is None else larger_is_better
    values = path.value(metric)
    a = alphas.astype(values.dtype).reshape((1,) * (values.ndim - 1) + (-1,))
    linear = (1 - a) * values[..., :1] + a * values[..., -1:]
    gap = linear - values if larger else values - linear  # (..., A), 0 at both ends
    measure: Any
    if kind == "linear":
        measure = gap.max(-1)
    elif kind == "relative":
        nowhere = (linear == 0).astype(linear.dtype)  # no model at either end is ever right: there is nothing to lose
        measure = (gap / (linear + nowhere)).max(-1)
    elif kind == "midpoint":
        measure = gap[..., int(np.argmax(alphas == 0.5))]
    elif kind == "worst":
        measure = (1 - values if larger else values).max(-1)
    else:
        ends = (values[..., :1] + values[..., -1:]) / 2
        measure = (ends - values if larger else values - ends).max(-1)
    loss = path.loss[..., :: len(alphas) - 1].clip(0, 1)  # of both ends; NaN stays NaN, infinity does not become it
    return measure + 0 * loss.sum(-1).astype(values.dtype)

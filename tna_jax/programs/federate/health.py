"""Whether a federation still learns: judged by its losses, its accuracies and the updates that were accepted, round by round."""

import math
from typing import Any

import numpy as np

from tna_jax.objectives import Objective

PATIENCE = 5
"""Rounds without anything learned after which a federation is stopped."""
EXPLODED = 10.0
"""A test loss of so many times that of guessing has exploded; of an objective whose guess is unknown, so many times that of the first round."""
GREW = 3.0
"""A test loss of so many times the smallest so far, with less than half of the best accuracy so far, has diverged."""

NO_BETTER = 0.99
"""A test loss above this share of that of guessing is no better than it."""


def loss_of_guessing(objective: Objective, num_classes: int, targets: Any) -> float:
    """Returns the loss of a model that answers every input alike; NaN where that is unknown, of an objective of the user's own.

    Args:
      objective: what is minimized.
      num_classes: of classification, or the vocabulary of tokens.
      targets: those of the test set, (N, ...).
    """
    if objective.classes or objective.name in ("next-token", "masked-lm", "segmentation"):
        return math.log(max(num_classes, 2))
    if objective.name == "multi-label":
        return math.log(2)
    if objective.name == "regression":
        spread = np.asarray(targets, np.float64) - np.mean(targets, axis=0, dtype=np.float64)
        return float(np.mean(np.square(spread) if objective.unit.startswith("squared") else np.abs(spread)))
    return math.nan


def diverged(accuracy: np.ndarray, loss: np.ndarray, guessing: float) -> np.ndarray:
    """Returns in which rounds the model is worse than useless, (rounds,) bool.

    Its loss is not finite or has exploded, or has grown while accuracy was lost; or for the last `PATIENCE` rounds and more it was no better than
    that of guessing, with half of the best accuracy lost (units that have died answer every input alike).

    Args:
      accuracy, loss: (rounds,) of the server's model on the test set.
        Of objectives other than classification the accuracy is NaN.
      guessing: the loss of guessing; NaN if it is unknown.
    """
    finite = np.where(np.isfinite(loss), loss, np.inf)
    smallest = np.minimum.accumulate(finite)
    best = np.maximum.accumulate(np.nan_to_num(accuracy))
    grew = (finite > GREW * smallest) & (np.nan_to_num(accuracy) < 0.5 * best)
    reference = _first(loss) if math.isnan(guessing) else guessing
    exploded = EXPLODED * reference if reference > 0 else math.inf
    bad = np.asarray(~np.isfinite(loss) | (loss > exploded) | grew)
    dead = bad | ((finite > NO_BETTER * guessing) & (np.nan_to_num(accuracy) < 0.5 * best))
    lasting = int(np.argmin(dead[::-1])) if not dead.all() else len(dead)
    if lasting >= PATIENCE:
        bad[len(bad) - lasting :] = True
    return bad


def never_better_than_guessing(accuracy: np.ndarray, loss: np.ndarray, guessing: float, chance: float) -> bool:
    """Returns whether in `PATIENCE` rounds or more no model was better than one that answers every input alike.

    Args:
      accuracy, loss: (rounds,) of the server's model on the test set.
      guessing, chance: the loss of such a model, and its accuracy at best; NaN where they are unknown.
    """
    no_better = ~(loss <= NO_BETTER * guessing) & (accuracy <= chance + 1e-6)
    return len(loss) >= PATIENCE and bool(no_better.all())


def _first(loss: np.ndarray) -> float:
    """The first loss that is finite; 0 if there is none."""
    finite = loss[np.isfinite(loss)]
    return float(finite[0]) if len(finite) else 0.0


def diverged_in_round(accuracy: np.ndarray, loss: np.ndarray, guessing: float) -> int | None:
    """Returns the round, from 1, from which on the model stays diverged to the end; None if it ends as it should."""
    bad = diverged(accuracy, loss, guessing)
    if not len(bad) or not bad[-1]:
        return None
    sound = np.flatnonzero(~bad)
    return int(sound[-1]) + 2 if len(sound) else 1


def stalled(accuracy: np.ndarray, patience: int | None) -> str:
    """Says that the accuracy, (rounds,) so far, has not been better than its best for `patience` rounds; empty while it has."""
    if patience is None or len(accuracy) <= patience:
        return ""
    best = int(np.argmax(np.nan_to_num(accuracy)))
    if len(accuracy) - 1 - best < patience:
        return ""
    return f"the accuracy was best after round {best + 1} ({accuracy[best]:.4f}), {patience} round{'s' * (patience > 1)} ago"


def hopeless(accuracy: np.ndarray, loss: np.ndarray, accepted: np.ndarray, guessing: float) -> str:
    """Says why a federation should be stopped after its rounds so far; empty while it learns.

    Args:
      accuracy, loss: (rounds,) so far, of the server's model on the test set.
      accepted: (rounds,) how many updates were accepted.
      guessing: the loss of guessing; NaN if it is unknown.
    """
    if len(loss) < PATIENCE:
        return ""
    if not accepted[-PATIENCE:].any():
        return f"no reply was accepted in {PATIENCE} rounds"
    if not np.isfinite(loss[-PATIENCE:]).any():
        return f"the test loss was not finite in {PATIENCE} rounds"
    if diverged(accuracy, loss, guessing)[-PATIENCE:].all():
        return f"the model had diverged in {PATIENCE} rounds (test loss {loss[-1]:.3g}, accuracy {accuracy[-1]:.3f})"
    return ""

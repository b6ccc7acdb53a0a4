"""Whether a federation still learns: judged by its losses, its accuracies and the updates that were accepted, round by round."""

import math

import numpy as np

PATIENCE = 5
"""Rounds without anything learned after which a federation is stopped."""
EXPLODED = 10.0
"""A test loss of so many times that of guessing, log(classes), has exploded; of other objectives, so many times that of the first round."""
GREW = 3.0
"""A test loss of so many times the smallest so far, with less than half of the best accuracy so far, has diverged."""


def diverged(accuracy: np.ndarray, loss: np.ndarray, classes: int) -> np.ndarray:
    """Returns in which rounds the model is worse than useless, (rounds,) bool.

    Its loss is not finite or has exploded, or has grown while accuracy was lost.

    Args:
      accuracy, loss: (rounds,) of the server's model on the test set.
      classes: number of classes; 0 for objectives other than classification, whose accuracy is NaN.
    """
    finite = np.where(np.isfinite(loss), loss, np.inf)
    smallest = np.minimum.accumulate(finite)
    best = np.maximum.accumulate(np.nan_to_num(accuracy))
    grew = (finite > GREW * smallest) & (np.nan_to_num(accuracy) < 0.5 * best)
    reference = math.log(max(classes, 2)) if classes else _first(loss)
    exploded = EXPLODED * reference if reference > 0 else math.inf
    return np.asarray(~np.isfinite(loss) | (loss > exploded) | grew)


def _first(loss: np.ndarray) -> float:
    """The first loss that is finite; 0 if there is none."""
    finite = loss[np.isfinite(loss)]
    return float(finite[0]) if len(finite) else 0.0


def diverged_in_round(accuracy: np.ndarray, loss: np.ndarray, classes: int) -> int | None:
    """Returns the round, from 1, from which on the model stays diverged to the end; None if it ends as it should."""
    bad = diverged(accuracy, loss, classes)
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
    return f"the accuracy was best after round {best + 1} ({accuracy[best]:.4f}), {patience} rounds ago"


def hopeless(accuracy: np.ndarray, loss: np.ndarray, accepted: np.ndarray, classes: int) -> str:
    """Says why a federation should be stopped after its rounds so far; empty while it learns.

    Args:
      accuracy, loss: (rounds,) so far, of the server's model on the test set.
      accepted: (rounds,) how many updates were accepted.
      classes: number of classes.
    """
    if len(loss) < PATIENCE:
        return ""
    if not accepted[-PATIENCE:].any():
        return f"no reply was accepted in {PATIENCE} rounds"
    if not np.isfinite(loss[-PATIENCE:]).any():
        return f"the test loss was not finite in {PATIENCE} rounds"
    if diverged(accuracy, loss, classes)[-PATIENCE:].all():
        return f"the model had diverged in {PATIENCE} rounds (test loss {loss[-1]:.3g}, accuracy {accuracy[-1]:.3f})"
    return ""

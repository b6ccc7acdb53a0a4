"""Which permutations of hidden units anchors leave: exactly, by counting.

A mask and the values of its anchors stand for a family of networks: anchored entries at their values, trainable ones anything. A
permutation of the units of a hidden layer is a symmetry of the family if it maps the family to itself, that is, if every
unit's anchors have the positions and the values of the unit that takes its place. Then a training run can end in either of
two weight vectors of one function. Here a layer is a table of its units, (h, k): row i holds all entries that touch unit
i, incoming weights, bias, outgoing weights (`unit_entries`). The layers around it stay as they are.

Anchors of different values (continuous initial values) tie a unit down wherever it has at least one. Anchors of equal value
(zero biases, anchors set to a constant) tie only by their positions. That anchors break symmetries is the idea of arXiv
2402.01342; the counting is this project's. Everything here is NumPy on the host.
"""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike


def unit_entries(incoming: ArrayLike, bias: ArrayLike, outgoing: ArrayLike) -> np.ndarray:
    """Returns the entries that touch each unit, as a table (h, k); for weights and for masks alike.

    Args:
      incoming: (..., h), the kernel into the layer, units on the last axis (Flax).
      bias: (h,).
      outgoing: (h, C), the dense kernel out of the layer.

    Returns:
      (h, k) with k = fan-in + 1 + C.

    Raises:
      ValueError: the number of units differs.
    """
    incoming, bias, outgoing = np.asarray(incoming), np.asarray(bias), np.asarray(outgoing)
    if not incoming.shape[-1] == len(bias) == len(outgoing):
        shapes = f"incoming {incoming.shape}, bias {bias.shape}, outgoing {outgoing.shape}"
        raise ValueError(f"the units are the last axis of incoming and the first of bias and outgoing; got {shapes}")
    return np.concatenate([incoming.reshape(-1, len(bias)).T, bias[:, None], outgoing.reshape(len(bias), -1)], axis=1)


def equivalence_classes(mask: ArrayLike, anchors: ArrayLike) -> np.ndarray:
    """Numbers the units, (h,) integers: units of one number can take each other's place, others cannot.

    Args:
      mask: (h, k) bool, False = anchored.
      anchors: (h, k) values; read where anchored. Equal means `==`, so 0.0 and -0.0 are equal.

    Raises:
      ValueError: shapes differ, or `mask` is not bool.
    """
    mask, anchors = np.asarray(mask), np.asarray(anchors)
    if mask.dtype != bool or mask.ndim != 2 or mask.shape != anchors.shape:
        raise ValueError(
            f"expected a bool mask (h, k) and anchors of its shape; got {mask.dtype} {mask.shape} and {anchors.shape}"
        )
    seen: dict[tuple[float | None, ...], int] = {}
    rows = (
        tuple(None if m else float(a) for m, a in zip(*row, strict=True)) for row in zip(mask, anchors, strict=True)
    )
    return np.array([seen.setdefault(row, len(seen)) for row in rows])


def num_symmetries(mask: ArrayLike, anchors: ArrayLike) -> int:
    """Counts the permutations of the units that are symmetries, the identity included: the product of `n!` over the classes.

    Arguments and errors as in `equivalence_classes`. Laws: 1 if every unit has an anchor of its own value, `h!` if nothing is anchored.
    """
    return math.prod(math.factorial(n) for n in np.bincount(equivalence_classes(mask, anchors)).tolist())


def enumerate_symmetries(mask: ArrayLike, anchors: ArrayLike) -> np.ndarray:
    """Lists all symmetries by brute force, (n, h) integers in lexical order: `table[p]` keeps every anchor at its place and value.

    The legible reference of `num_symmetries`, for h up to about 8. Arguments and errors as in `equivalence_classes`.
    """
    mask, anchors = np.asarray(mask), np.asarray(anchors)
    everything = np.array(list(itertools.permutations(range(len(mask)))))
    same = (mask[everything] == mask) & (mask | (anchors[everything] == anchors))
    return np.asarray(everything[same.all(axis=(1, 2))])


def expected_free_units(h: int, ratio: ArrayLike, entries: int) -> np.ndarray:
    """Computes how many units are expected to have no anchor at all: `h (1 - ratio)^entries`, Bernoulli mask, ratio = share of anchors.

    With anchors of different values only these are exactly permutable.
    """
    return np.asarray(h * (1 - np.asarray(ratio, np.float64)) ** entries)


def chance_of_a_swap(h: int, ratio: ArrayLike, entries: int) -> np.ndarray:
    """Computes the probability that at least two units have no anchor, so that a symmetry is left; anchors of different values."""
    tied = -np.expm1(
        entries * np.log1p(-np.minimum(np.asarray(ratio, np.float64), 1 - 1e-16))
    )  # 1 - (1 - ratio)^entries
    return np.asarray(1 - tied**h - h * (1 - tied) * tied ** (h - 1))


def expected_count(h: int, ratio: float, different: int, equal: int = 0) -> float:
    """Computes the mean of `num_symmetries` over Bernoulli masks: the sum over all permutations of the probability that each is a symmetry.

    A cycle of length L >= 2 survives where its L units agree: an entry whose anchors have different values must be trainable in
    all of them, `(1 - ratio)^L`; one whose anchors are equal must be trainable in all or anchored in all,
    `(1 - ratio)^L + ratio^L`. The sum over cycle types is `E_n = sum_L (n-1)!/(n-L)! p_L E_(n-L)`, `E_0 = 1`, `p_1 = 1`; for
    `equal = 0` it is the mean of F! for F ~ Binomial(h, (1 - ratio)^different).

    Args:
      h: units, up to 170 (float64 ends at 170!).
      ratio: the share of anchored entries to expect, in [0, 1].
      different, equal: how many of a unit's k entries have anchors of different values, of one common value.

    Raises:
      ValueError: `ratio` or `h` out of range.
    """
    if not (0 <= ratio <= 1 and 1 <= h <= 170):
        raise ValueError(f"ratio must lie in [0, 1] and h in [1, 170], got ratio {ratio}, h {h}")
    free = [(1 - ratio) ** length for length in range(h + 1)]
    cycle = [free[n] ** different * (free[n] + ratio**n) ** equal for n in range(h + 1)]
    cycle[1] = 1.0
    means = [1.0]
    for n in range(1, h + 1):
        means.append(
            sum(math.perm(n - 1, length - 1) * cycle[length] * means[n - length] for length in range(1, n + 1))
        )
    return means[h]

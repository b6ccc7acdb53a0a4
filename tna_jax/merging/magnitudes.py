"""Order statistics of magnitudes, exact, of one tensor or of whole models, without sorting and without holding them.

The bits of a float32 that is not negative grow with its value. A first survey counts its upper 16 bits, a second one the
lower 16 bits of those entries whose upper bits are those of the entry looked for. float64 magnitudes are ranked as float32.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tna_jax.merging.method import Array, Options, Survey

UPPER, LOWER = 1 << 15, 1 << 16
"""Values of the upper bits (the sign is 0) and of the lower bits."""


class UpperBits(NamedTuple):
    """What is known of the entries looked for after the first survey."""

    upper: Array
    """(V, R) their upper bits."""
    rank: Array
    """(V, R) their ranks among the entries of these upper bits, from 0."""


def magnitudes(vectors: Array) -> Array:
    """Returns the float32 magnitudes by which entries of (M, ...) vectors are ranked."""
    return np.abs(vectors).astype(np.float32, copy=False)


def surveys(
    ranks: Callable[[int, Options], Sequence[int]], of: Callable[[Array], Array] = magnitudes
) -> tuple[Survey, Survey]:
    """Returns the surveys whose facts are (V, R) float32 values of given ranks.

    Args:
      ranks: (number n of entries, options) -> R ranks in [0, n), 0 the smallest entry.
      of: vectors (M, ...) -> (V, ...) float32, not negative, of which each row is ranked by itself.
    """

    def first(vectors: Array, facts: Any, options: Options) -> Array:
        return np.stack([np.bincount(bits >> 16, minlength=UPPER + 1) for bits in _bits(of(vectors))])

    def upper(total: Array, facts: Any, options: Options) -> UpperBits:
        wanted = np.array(ranks(int(total[0].sum()), options), np.int64)
        ends = np.cumsum(total, axis=1)  # (V, bins)
        bins = np.stack([np.searchsorted(row, wanted, side="right") for row in ends])
        before = np.take_along_axis(ends - total, bins, axis=1)
        return UpperBits(bins, wanted[None] - before)

    def second(vectors: Array, facts: UpperBits, options: Options) -> Array:
        counts = np.zeros((*facts.upper.shape, LOWER), np.int64)
        for row, bits in enumerate(_bits(of(vectors))):
            for column, value in enumerate(facts.upper[row]):
                chosen = bits[(bits >> 16) == value] & (LOWER - 1)
                counts[row, column] = np.bincount(chosen, minlength=LOWER)
        return counts

    def lower(total: Array, facts: UpperBits, options: Options) -> Array:
        ends = np.cumsum(total, axis=2)
        bits = (ends <= facts.rank[..., None]).sum(axis=2) | (facts.upper << 16)  # (V, R)
        return np.ascontiguousarray(bits.astype(np.uint32)).view(np.float32)

    return Survey(first, upper), Survey(second, lower)


def kept(density: float, size: int) -> int:
    """Returns how many of `size` entries a density keeps: `floor(density * size)`, at least one."""
    return min(size, max(1, int(density * size)))


def _bits(rows: Array) -> list[Array]:
    """(V, ...) float32 as V flat arrays of int64-safe bits; NaN is ranked above infinity."""
    return [np.ascontiguousarray(row, np.float32).view(np.uint32).ravel() & 0x7FFFFFFF for row in rows]

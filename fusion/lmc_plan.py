"""Which models `tna lmc` trains, and which of them it compares: the sweep as data, every distinct model once."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import masks

INIT, ORDER, MASK = 0, 1, 2
"""Streams of a pair's seed, folded into its key."""


class Member(NamedTuple):
    """One model of the ensemble."""

    seed: int
    ratio: float
    method: str
    """`tna` or `prune`; `tna` at ratio 0, where both are plain training."""
    start: int
    """Which of the pair's two initial values."""
    order: int
    """Which of the pair's two data orders."""


class Cell(NamedTuple):
    """One pair: a row of the result for each split."""

    method: str
    init: str
    ratio: float
    seed: int
    members: tuple[int, int]
    """Indices of the two models."""


def plan(
    ratios: list[float], seeds: list[int], inits: list[str], methods: list[str]
) -> tuple[list[Member], list[Cell]]:
    """The models and the pairs of a sweep.

    Both models of a pair see the data in different orders. `same`: both start from one initial value. `different`: from two,
    the second takes the anchors of the first. Cells share the models they have in common, so a sweep costs less than its
    number of cells: at ratio 0 both methods are one, and the first model of a pair serves both kinds of initialisation.
    """
    members: dict[Member, int] = {}
    cells = []
    for method, init, ratio, seed in itertools.product(methods, inits, ratios, seeds):
        trained = method if ratio > 0 else "tna"
        both = [Member(seed, ratio, trained, start, order) for order, start in ((0, 0), (1, int(init == "different")))]
        first, second = (members.setdefault(member, len(members)) for member in both)
        cells.append(Cell(method, init, ratio, seed, (first, second)))
    return list(members), cells


def stream(seed: int, which: int, index: int = 0) -> jax.Array:
    """A key of a pair's seed for one purpose."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), which), index)


def build(members: list[Member], init, draw) -> tuple[masks.Params, masks.Mask, jax.Array]:
    """Initial parameters (M, ...), masks (M, ...) and data-order keys (M,) of the models.

    Args:
      members: the models.
      init: a key to parameters.
      draw: (key, parameters, ratio) to a mask; one key for all ratios of a seed, so that a seed's masks are nested.
    """
    started, prune, share = jax.jit(init), jax.jit(masks.prune), jax.jit(masks.share_anchors)
    starts = {(m.seed, m.start): started(stream(m.seed, INIT, m.start)) for m in members}
    firsts = {m.seed: started(stream(m.seed, INIT, 0)) for m in members}
    drawn = {(m.seed, m.ratio): draw(stream(m.seed, MASK), firsts[m.seed], m.ratio) for m in members}
    values = []
    for m in members:
        mask = drawn[m.seed, m.ratio]
        own = starts[m.seed, m.start]
        values.append(prune(own, mask) if m.method == "prune" else share(own, firsts[m.seed], mask))

    def stack(trees):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)  # on the host: no program for each shape

    keys = jnp.stack([stream(m.seed, ORDER, m.order) for m in members])
    return stack(values), stack([drawn[m.seed, m.ratio] for m in members]), keys

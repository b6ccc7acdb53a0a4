"""Which models `tna lmc` trains, and which of them it compares: the sweep as data, every distinct model once."""

import itertools
from typing import NamedTuple

from tna_jax.programs.training.initial_models import ModelSpec


class PairSpec(NamedTuple):
    """One pair: a row of the result for each split."""

    method: str
    init: str
    ratio: float
    seed: int
    members: tuple[int, int]
    """Indices of the two models."""


def plan(
    ratios: list[float], seeds: list[int], inits: list[str], methods: list[str]
) -> tuple[list[ModelSpec], list[PairSpec]]:
    """The models and the pairs of a sweep.

    Both models of a pair see the data in different orders. `same`: both start from one initial value. `different`: from two,
    the second takes the anchors of the first. Cells share the models they have in common, so a sweep costs less than its
    number of cells: at ratio 0 both methods are one, and the first model of a pair serves both kinds of initialization.
    """
    members: dict[ModelSpec, int] = {}
    cells = []
    for method, init, ratio, seed in itertools.product(methods, inits, ratios, seeds):
        trained = method if ratio > 0 else "tna"
        both = [
            ModelSpec(seed, ratio, trained, start, order) for order, start in ((0, 0), (1, int(init == "different")))
        ]
        first, second = (members.setdefault(member, len(members)) for member in both)
        cells.append(PairSpec(method, init, ratio, seed, (first, second)))
    return list(members), cells

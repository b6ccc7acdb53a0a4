"""Matching of many models at once by Frank-Wolfe over doubly stochastic matrices: C2M3 (Crisostomi et al. 2024, arXiv 2405.17897).

Every model has a permutation of each group to an order common to all. The sum of the inner products of all pairs is a
polynomial of these; with doubly stochastic matrices in their place it is climbed as a whole: the gradient of every matrix, the
permutation with the largest inner product with it, and the best point on the line to it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tna_jax.matching.assignment import assign
from tna_jax.matching.gains import Leaves, blocks
from tna_jax.matching.permutations import PermutationSpec

Matrices = dict[str, np.ndarray]
"""By group (n, n) float32: row i says of which of the model's units place i of the common order is made."""


class Part(NamedTuple):
    """A block of a parameter of one model (`gains.blocks`)."""

    values: np.ndarray
    groups: tuple[str | None, ...]

    def mixed(self, matrices: Matrices, but: int | None = None) -> np.ndarray:
        """The block with its units mixed along all axes, or all but one."""
        result = self.values
        for i, name in enumerate(self.groups):
            if name is not None and i != but:
                result = np.moveaxis(np.tensordot(matrices[name], result, (1, i)), 0, i)
        return result


def frank_wolfe(
    spec: PermutationSpec, models: Sequence[Leaves], iterations: int = 100, tolerance: float = 1e-4
) -> list[dict[str, np.ndarray]]:
    """Finds permutations of all models to one common order.

    Args:
      spec: of the network.
      models: the parameters of each, float32 by path.
      iterations: steps at most.
      tolerance: it ends where a step gains less than this share of the objective.

    Returns:
      For each model, by group, which of its units stands at each place: for `apply_permutation`.
    """
    parts = [
        [Part(block.a, block.groups) for path, leaf in spec.params.items() for block in blocks(m[path], m[path], leaf)]
        for m in models
    ]
    degree = max((sum(name is not None for name in part.groups) for part in parts[0]), default=0)
    matrices: list[Matrices] = [
        {name: np.eye(size, dtype=np.float32) for name, size in spec.groups.items()} for _ in models
    ]
    mixed = [[part.mixed(each) for part in model] for model, each in zip(parts, matrices, strict=True)]
    for _ in range(iterations if degree else 0):
        corners = _corners(parts, mixed, matrices, spec)
        points = np.linspace(0, 1, degree + 1)
        along = [mixed] + [
            [
                [part.mixed(_between(old, new, t)) for part in model]
                for model, old, new in zip(parts, matrices, corners, strict=True)
            ]
            for t in points[1:]
        ]
        step, gained, objective = _line_search(along, points)
        if not gained > tolerance * abs(objective):
            break
        weights = _lagrange(points, step)
        matrices = [_between(old, new, step) for old, new in zip(matrices, corners, strict=True)]
        mixed = [
            [
                np.sum([np.float32(w) * at[i][k] for w, at in zip(weights, along, strict=True)], 0)
                for k in range(len(parts[0]))
            ]
            for i in range(len(parts))
        ]
    return [{name: assign(matrix) for name, matrix in each.items()} for each in matrices]


def _corners(
    parts: list[list[Part]], mixed: list[list[np.ndarray]], matrices: list[Matrices], spec: PermutationSpec
) -> list[Matrices]:
    """The permutations in whose direction the objective rises most."""
    total = [sum(blocks[1:], blocks[0]) for blocks in zip(*mixed, strict=True)]
    corners = []
    for model, own, each in zip(parts, mixed, matrices, strict=True):
        gradient = {name: np.zeros((size, size)) for name, size in spec.groups.items()}
        for part, everything, block in zip(model, total, own, strict=True):
            for axis, name in enumerate(part.groups):
                if name is not None:
                    fronts = (np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
                              for x in (everything - block, part.mixed(each, but=axis)))  # fmt: skip
                    goal, here = fronts
                    gradient[name] += goal @ here.T
        corners.append({name: np.eye(len(g), dtype=np.float32)[assign(g)] for name, g in gradient.items()})
    return corners


def _between(old: Matrices, new: Matrices, step: float) -> Matrices:
    return {name: (1 - np.float32(step)) * old[name] + np.float32(step) * new[name] for name in old}


def _lagrange(points: np.ndarray, at: float) -> np.ndarray:
    """The weights of the values at `points` in the polynomial through them, at another point."""
    return np.array([np.prod([(at - q) / (p - q) for q in points if q != p]) for p in points])


def _line_search(along: list[list[list[np.ndarray]]], points: np.ndarray) -> tuple[float, float, float]:
    """The best step on a line, what it gains, and the objective at its start.

    The mixed parameters are polynomials of the step, so the objective, a quadratic form of them, is known from their inner
    products at a few points.
    """
    sums = [[sum(blocks[1:], blocks[0]) for blocks in zip(*mixed, strict=True)] for mixed in along]
    form = np.zeros((len(points), len(points)))
    for i, p in enumerate(along):
        for j, q in enumerate(along[: i + 1]):
            pairs = sum(float(np.vdot(x, y)) for x, y in zip(sums[i], sums[j], strict=True))
            pairs -= sum(float(np.vdot(x, y)) for m, n in zip(p, q, strict=True) for x, y in zip(m, n, strict=True))
            form[i, j] = form[j, i] = pairs / 2
    steps = np.linspace(0, 1, 101)
    values = np.array([w @ form @ w for w in (_lagrange(points, t) for t in steps)])
    best = int(values.argmax())
    return float(steps[best]), float(values[best] - values[0]), float(values[0])

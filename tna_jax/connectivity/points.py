"""Points of the space between models: on the line between two of them, or a weighted sum of all."""

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from tna_jax import interpolation
from tna_jax.ensemble import member
from tna_jax.masks import Params


class Line(NamedTuple):
    """A point of the line between two members; (T, ...) for T points."""

    pair: Any
    """(2,) int32 indices."""
    alpha: Any
    """() float32."""

    def params(self, members: Params) -> Params:
        return interpolation.line(member(members, self.pair[0]), member(members, self.pair[1]), self.alpha)

    def corner(self) -> tuple[Array, Array]:
        """A member, and whether the point is that member itself."""
        ends = (self.alpha == 0) | (self.alpha == 1) | (self.pair[0] == self.pair[1])
        return jnp.where(self.alpha == 1, self.pair[1], self.pair[0]), ends


class Mixture(NamedTuple):
    """A weighted sum of all members; (T, M) for T points."""

    weights: Any
    """(M,) float32."""

    def params(self, members: Params) -> Params:
        return interpolation.mixture(members, self.weights)

    def corner(self) -> tuple[Array, Array]:
        """As that of a line."""
        return interpolation.corner(self.weights)


Point = Line | Mixture


def pairs(models: int) -> Int32[np.ndarray, "P 2"]:
    """Returns all unordered pairs of `models` models: (P, 2) int32, P = models (models - 1) / 2, in lexicographic order."""
    return np.array(list(itertools.combinations(range(models), 2)), np.int32).reshape(-1, 2)

"""FedProx (Li et al. 2020, arXiv 1812.06127): local steps are held near the server's parameters."""

import dataclasses
from typing import ClassVar

import jax

from tna_jax.federated.algorithm import Algorithm, Context
from tna_jax.masks import Params


@dataclasses.dataclass(frozen=True)
class FedProx(Algorithm):
    """Local gradient `+ mu (w - w_g)` (equation 2). On an anchored entry `w = w_g`: the term is 0 there.

    Attributes:
      mu: weight of the proximal term, at least 0; at 0 it is FedAvg.
    """

    title: ClassVar[str] = "FedProx"
    paper: ClassVar[str] = "1812.06127"
    mu: float = 0.01

    def gradient(self, gradient: Params, params: Params, context: Context) -> Params:
        return jax.tree.map(lambda g, w, w_g: g + self.mu * (w - w_g), gradient, params, context.broadcast.params)

"""FedSAM (Qu et al. 2022, arXiv 2206.02618): clients make sharpness-aware steps."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, Context, Evaluate
from tna_jax.masks import Params


@dataclasses.dataclass(frozen=True)
class FedSam(Algorithm):
    """The gradient of a step is taken at `w + rho g / ||g||`, g the gradient at w on the same batch (Algorithm 1).

    Under a mask schedule (ours) w is perturbed in the live entries alone, and the norm is theirs. Metrics and running
    statistics are those at w.

    Attributes:
      rho: radius.
    """

    title: ClassVar[str] = "FedSAM"
    paper: ClassVar[str] = "2206.02618"
    rho: float = 0.05

    def descend(self, evaluate: Evaluate, params: Params, context: Context) -> tuple[Params, Any]:
        gradient, rest = evaluate(params)
        moving = jax.tree.map(lambda m, g: jnp.where(m, g, jnp.zeros_like(g)), context.live, gradient)
        norm = jnp.sqrt(sum((jnp.sum(g * g) for g in jax.tree.leaves(moving)), start=jnp.float32(0)))
        scale = self.rho / jnp.maximum(norm, jnp.float32(1e-12))
        return evaluate(jax.tree.map(lambda w, g: w + scale * g, params, moving))[0], rest

"""FedSAM (Qu et al. 2022, arXiv 2206.02618): clients make sharpness-aware steps."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, Context, Evaluate
from tna_jax.federated.servers import in_float32
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
        wide = in_float32(moving)  # in 16 bits squares vanish or overflow
        norm = jnp.sqrt(sum((jnp.sum(jnp.real(g * jnp.conj(g))) for g in jax.tree.leaves(wide)), start=jnp.float32(0)))
        scale = self.rho / jnp.maximum(norm, jnp.float32(1e-12))
        moved = jax.tree.map(lambda w, g: (w.astype(g.dtype) + scale.astype(g.dtype) * g).astype(w.dtype), params, wide)
        return evaluate(moved)[0], rest

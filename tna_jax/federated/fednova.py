"""FedNova (Wang et al. 2020, arXiv 2007.07481): clients that make more steps do not pull harder."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, ClientUpdate, Tree, per_step
from tna_jax.federated.schedules import by_phase
from tna_jax.masks import Mask, Params


@dataclasses.dataclass(frozen=True)
class FedNova(Algorithm):
    """`Delta = (sum_k p_k K_k) (sum_k p_k Delta_k / K_k)`, `p_k = n_k / n` (equation 9; K_k its `||a_k||_1`).

    Where all clients make the same number of steps it is FedAvg. Under a mask schedule (ours) both sums run over each entry's
    own K, the steps in which it was live, and the second over the clients that have such steps, divided by their share.
    """

    title: ClassVar[str] = "FedNova"
    paper: ClassVar[str] = "2007.07481"

    def summand(self, update: ClientUpdate, mask: Mask, weight: jax.Array) -> dict[str, Tree]:
        steps = jax.tree.map(lambda d, k: jnp.broadcast_to(k, d.shape), update.delta, by_phase(mask, weight))
        moved = jax.tree.map(lambda k: (k > 0).astype(jnp.float32), steps)
        return {"delta": per_step(update.delta, mask, weight), "steps": steps, "moved": moved}

    def direction(self, average: dict[str, Tree], extra: Tree, live: Mask, share: jax.Array) -> tuple[Params, Tree]:
        def scale(delta: jax.Array, steps: jax.Array, moved: jax.Array) -> jax.Array:
            return delta * steps / jnp.where(moved > 0, moved, jnp.ones_like(moved))

        return jax.tree.map(scale, average["delta"], average["steps"], average["moved"]), extra

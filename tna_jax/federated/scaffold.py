"""SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378): control variates take the clients' drift out of their steps."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, ClientUpdate, Context, Tree, per_step, where_live, zeros_like
from tna_jax.federated.schedules import live_in_round
from tna_jax.masks import Mask, Params


@dataclasses.dataclass(frozen=True)
class Scaffold(Algorithm):
    """Algorithm 1 of the paper, option II.

    Client: local gradient `g - c_k + c`, then `c_k+ = c_k - c + (w_g - w) / (K lr)`. Server: `c <- c + (|S|/N) mean(c_k+ - c_k)`;
    clients count one each, whatever their number of examples.

    Under a mask schedule (ours): K of an entry counts the steps in which it was live; where there was none, c_k and c stay as
    they are. With local momentum K is `gradient_weight`.
    """

    title: ClassVar[str] = "SCAFFOLD"
    paper: ClassVar[str] = "1910.06378"
    weighting: ClassVar = "clients"

    def init_server(self, params: Params) -> Tree:
        return zeros_like(params)

    def init_client(self, params: Params) -> Tree:
        return zeros_like(params)

    def message(self, extra: Tree) -> Tree:
        return extra

    def gradient(self, gradient: Params, params: Params, context: Context) -> Params:
        def correct(g: jax.Array, c_k: jax.Array, c: jax.Array) -> jax.Array:
            return (g.astype(c.dtype) - c_k + c).astype(g.dtype)

        return jax.tree.map(correct, gradient, context.memory, context.broadcast.extra)

    def after(self, delta: Params, context: Context, weight: jax.Array) -> tuple[Tree, Tree]:
        broadcast, memory = context.broadcast, context.memory
        slope = jax.tree.map(lambda d: -d / broadcast.learning_rate, per_step(delta, broadcast.mask, weight))
        moved = jax.tree.map(lambda c_k, c, s: c_k - c + s, memory, broadcast.extra, slope)
        new = where_live(live_in_round(broadcast.mask, weight), moved, memory)
        return new, jax.tree.map(jnp.subtract, new, memory)

    def summand(self, update: ClientUpdate, mask: Mask, weight: jax.Array) -> dict[str, Tree]:
        return {"delta": update.delta, "variate": update.extra}

    def direction(self, average: dict[str, Tree], extra: Tree, live: Mask, share: jax.Array) -> tuple[Params, Tree]:
        moved = jax.tree.map(lambda c, d: c + share * d, extra, average["variate"])
        return average["delta"], where_live(live, moved, extra)

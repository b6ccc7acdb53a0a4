"""FedDyn (Acar et al. 2021, arXiv 2111.04263): each client's loss is regularized so that the clients' optima agree."""

import dataclasses
from typing import ClassVar

import jax

from tna_jax.federated.algorithm import Algorithm, Context, Tree, where_live, zeros_like
from tna_jax.federated.schedules import live_in_round
from tna_jax.federated.servers import in_float32
from tna_jax.masks import Mask, Params


@dataclasses.dataclass(frozen=True)
class FedDyn(Algorithm):
    """Algorithm 1 of the paper.

    Client: loss `- <h_k, w> + (a/2) ||w - w_g||^2`, then `h_k <- h_k - a (w - w_g)`. Server: `h <- h - a (|S|/N) mean Delta`,
    `w_g <- w_g + mean Delta - h / a`; clients count one each, whatever their number of examples.

    Under a mask schedule (ours): an anchored entry has `w = w_g`, so its h_k stays; on the server its h stays too, and
    `- h / a` does not move it although h is not 0 there: it is copied.

    Attributes:
      alpha: a, above 0.
    """

    title: ClassVar[str] = "FedDyn"
    paper: ClassVar[str] = "2111.04263"
    weighting: ClassVar = "clients"
    positive: ClassVar = ("alpha",)
    alpha: float = 0.1

    def init_server(self, params: Params) -> Tree:
        return zeros_like(params)

    def init_client(self, params: Params) -> Tree:
        return zeros_like(params)

    def gradient(self, gradient: Params, params: Params, context: Context) -> Params:
        def pull(g: jax.Array, h: jax.Array, w: jax.Array, w_g: jax.Array) -> jax.Array:
            return (g.astype(h.dtype) - h + self.alpha * (w - w_g).astype(h.dtype)).astype(g.dtype)

        return jax.tree.map(pull, gradient, context.memory, params, context.broadcast.params)

    def after(self, delta: Params, context: Context, weight: jax.Array) -> tuple[Tree, Tree]:
        memory = context.memory
        moved = jax.tree.map(lambda h, d: h - self.alpha * d, memory, in_float32(delta))
        return where_live(live_in_round(context.broadcast.mask, weight), moved, memory), ()

    def direction(self, average: dict[str, Tree], extra: Tree, live: Mask, share: jax.Array) -> tuple[Params, Tree]:
        delta = average["delta"]
        moved = jax.tree.map(lambda h, d: h - self.alpha * share * d, extra, delta)
        extra = where_live(live, moved, extra)
        return jax.tree.map(lambda d, h: d - h / self.alpha, delta, extra), extra

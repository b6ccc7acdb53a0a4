"""Uploads of fewer bytes as algorithms of one's own: 8-bit numbers, and the largest entries with error feedback.

An entry that was anchored for the whole round is 0 in what is sent, and what a client kept of it for later stays.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tna_jax import federated as fl
from tna_jax.federated.algorithm import ClientUpdate, Context, Tree, where_live, zeros_like
from tna_jax.federated.schedules import live_in_round
from tna_jax.masks import Mask, Params


def quantize(update: Params, levels: int = 127) -> Params:
    """Rounds every leaf to multiples of its largest magnitude over `levels`: one byte an entry, and a float32 a leaf."""

    def leaf(x: jax.Array) -> jax.Array:
        unit = jnp.maximum(jnp.max(jnp.abs(x)), jnp.float32(1e-30)) / levels
        return jnp.round(x / unit) * unit

    return jax.tree.map(leaf, update)


def keep_largest(update: Params, share: float) -> Params:
    """Keeps of every leaf the share of entries that are largest in magnitude, at least one, and puts 0 in the place of the others."""

    def leaf(x: jax.Array) -> jax.Array:
        flat = jnp.abs(x).reshape(-1)
        _, places = jax.lax.top_k(flat, max(round(share * flat.size), 1))
        kept = jnp.zeros(flat.shape, bool).at[places].set(True).reshape(x.shape)
        return jnp.where(kept, x, jnp.zeros_like(x))

    return jax.tree.map(leaf, update)


@dataclasses.dataclass(frozen=True)
class Quantized(fl.Algorithm):
    """FedAvg with moves of 8 bits."""

    title: ClassVar[str] = "FedAvg, 8-bit uploads"

    def summand(self, update: ClientUpdate, mask: Mask, weight: jax.Array) -> dict[str, Tree]:
        return {"delta": quantize(update.delta)}


@dataclasses.dataclass(frozen=True)
class Largest(fl.Algorithm):
    """FedAvg with the largest entries of moves; what was not sent is kept and added to the next move (error feedback, arXiv 1809.07599).

    Attributes:
      share: of the entries that are sent, above 0.
    """

    title: ClassVar[str] = "FedAvg, largest entries"
    positive: ClassVar[tuple[str, ...]] = ("share",)
    share: float = 0.1

    def init_client(self, params: Params) -> Tree:
        return zeros_like(params)

    def after(self, delta: Params, context: Context, weight: jax.Array) -> tuple[Tree, Tree]:
        live = live_in_round(context.broadcast.mask, weight)
        whole = where_live(live, jax.tree.map(jnp.add, delta, context.memory), zeros_like(delta))
        sent = keep_largest(whole, self.share)
        return where_live(live, jax.tree.map(jnp.subtract, whole, sent), context.memory), sent

    def summand(self, update: ClientUpdate, mask: Mask, weight: jax.Array) -> dict[str, Tree]:
        return {"delta": update.extra}

"""MOON (Li et al. 2021, arXiv 2103.16257): features stay near the server's and move away from the client's last ones."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from tna_jax.federated.algorithm import Algorithm, Context, Tree
from tna_jax.federated.robust import widened
from tna_jax.masks import Params


@dataclasses.dataclass(frozen=True)
class Moon(Algorithm):
    """Loss `+ mu * -log(exp(s_g / tau) / (exp(s_g / tau) + exp(s_p / tau)))` (equation 3), `s_g` and `s_p` the cosine similarities
    of an example's features to those of the server's model and of the client's last local model.

    Features are the inputs of the last dense layer, in evaluation mode (the paper adds a projection head; we do not). Before
    its first round a client's last model is the server's initial one. The last local model is no variate: its anchored
    entries are those of the server's model that it was trained from. With BatchNorm all three run on the client's running
    statistics of the moment (ours).

    Attributes:
      mu: weight of the contrastive term.
      tau: temperature, above 0.
    """

    title: ClassVar[str] = "MOON"
    paper: ClassVar[str] = "2103.16257"
    needs_features: ClassVar[bool] = True
    positive: ClassVar = ("tau",)
    mu: float = 1.0
    tau: float = 0.5

    def init_client(self, params: Params) -> Tree:
        return params

    def penalty(self, params: Params, inputs: jax.Array, weight: jax.Array, context: Context) -> jax.Array:
        assert context.features is not None
        state = context.state
        client, server, last = (
            context.features(model, state, inputs) for model in (params, context.broadcast.params, context.memory)
        )  # (B, F) each
        positive, negative = (_cosine(client, jax.lax.stop_gradient(other)) / self.tau for other in (server, last))
        losses = jnp.logaddexp(positive, negative) - positive
        return self.mu * jnp.sum(losses * weight) / jnp.maximum(jnp.sum(weight), jnp.float32(1))

    def after(self, delta: Params, context: Context, weight: jax.Array) -> tuple[Tree, Tree]:
        return jax.tree.map(jnp.add, context.broadcast.params, delta), ()


def _near_one(vectors: jax.Array) -> jax.Array:
    """Vectors whose largest entry is near 1, by powers of two, which round nothing: the squares of small ones vanish beside 1e-16, of large ones overflow."""
    vectors = widened(vectors)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), -1, keepdims=True))
    exponent = jnp.clip(jnp.frexp(jnp.where(jnp.isfinite(largest), largest, jnp.ones_like(largest)))[1], -100, 100)
    return vectors * jnp.ldexp(jnp.ones_like(largest), -exponent)


def _cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """(B,) cosine similarities of (B, F), in float32 at least; where a vector is 0, so is its similarity."""
    a, b = _near_one(a), _near_one(b)
    squares = jnp.sum(a * a, -1) * jnp.sum(b * b, -1)
    return jnp.sum(a * b, -1) * jax.lax.rsqrt(squares + jnp.float32(1e-16))

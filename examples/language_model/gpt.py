"""A small GPT of one's own (Flax NNX): RMSNorm, rotary positions, causal attention, tied embeddings. `tna train --model ./gpt.py:create`."""

import jax
import jax.numpy as jnp
from flax import nnx


def rotate(x: jax.Array) -> jax.Array:
    """Rotary positions (RoFormer, arXiv 2104.09864, eq. 34) of heads (B, T, H, D): halves of D turn by the position."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * frequencies)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * jnp.cos(angles) - second * jnp.sin(angles), first * jnp.sin(angles) + second * jnp.cos(angles)],
        axis=-1,
    )


class Block(nnx.Module):
    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.before_attention = nnx.RMSNorm(width, rngs=rngs)
        self.query, self.key, self.value, self.out = (
            nnx.Linear(width, width, use_bias=False, rngs=rngs) for _ in range(4)
        )
        self.before_mlp = nnx.RMSNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = self.before_attention(x)
        query, key, value = (
            project(h).reshape(*h.shape[:2], self.heads, -1) for project in (self.query, self.key, self.value)
        )
        attended = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        x = x + self.out(attended.reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.before_mlp(x))))


class GPT(nnx.Module):
    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, rngs: nnx.Rngs):
        self.embedding = nnx.Embed(vocabulary, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs) for _ in range(depth)])
        self.norm = nnx.RMSNorm(width, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns logits (B, T, vocabulary) of the token that follows each of `tokens` (B, T)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.embedding.attend(self.norm(x))


def create(rngs: nnx.Rngs, vocabulary: int = 96, width: int = 64, depth: int = 2, heads: int = 4) -> GPT:
    """Returns the network; `--model-options width=128 depth=4` sets its arguments."""
    return GPT(vocabulary, width, depth, heads, rngs)

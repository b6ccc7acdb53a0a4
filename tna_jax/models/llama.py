"""Llama (arXiv 2302.13971, 2307.09288), a decoder in the form of Hugging Face's; Mistral (2310.06825) and Qwen2 (2407.10671) with it."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.models import transformer, xla_cpu


class Body(transformer.Transformer):
    """All of a `Llama` but its head: tokens (B, T, width) after the last norm, and the words (V, width)."""

    act: str = "silu"
    head: str = "causal_lm"
    eps: float = 1e-6
    vocab: int = 32000
    kv_heads: int | None = None
    head_dim: int | None = None
    positions: int = 2048
    window: int | None = None
    theta: float = 10000.0
    rope_scaling: tuple[float, float, float, int] | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False
    pad_id: int | None = None

    HEADS: ClassVar[tuple[str, ...]] = ("causal_lm", "classes", "none")

    def _counts(self) -> tuple[str, ...]:
        return ("vocab", "positions", *(n for n in ("kv_heads", "head_dim", "window") if getattr(self, n) is not None))

    def __post_init__(self) -> None:
        super().__post_init__()
        transformer.check_pad(self.pad_id, self.vocab)
        heads, kv_heads, size = self.attention_sizes
        wrong = [f"{kv_heads} kv_heads do not divide {heads} heads"] if heads % kv_heads else []
        wrong += [f"heads must have an even size, got {size}"] if size % 2 else []
        wrong += [f"theta must be above 0, got {self.theta!r}"] if not self.theta > 0 else []
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def attention_sizes(self) -> tuple[int, int, int]:
        """Heads of the queries, heads of the keys and values, and entries of a head."""
        heads = self.sizes[0]
        return heads, self.kv_heads or heads, self.head_dim or self.width // heads

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        transformer.check_ids(x, self.positions)
        words = nn.Embed(self.vocab, self.width, embedding_init=nn.initializers.normal(self.init_std), name="words")
        tokens = words(x).astype(self.dtype or jnp.float32)  # B, T, width
        turns = rotations(x.shape[1], self.attention_sizes[2], self.theta, self.rope_scaling)
        make = nn.remat(Block) if self.remat else Block
        fields = (self.width, self.attention_sizes, self.sizes[1], self.act, self.window, self.qkv_bias, self.out_bias,
                  self.mlp_bias, self.attention_dropout if train else 0.0, self.eps, self.init_std, self.dtype)  # fmt: skip
        for i in range(self.depth):
            tokens = make(*fields, name=f"layer_{i}")(tokens, turns, None if mask is None else mask.astype(bool))
        return rms_norm(self.eps, self.dtype, "norm")(tokens), words.embedding


class Llama(Body):
    """Token ids (B, T) through embeddings, causal blocks (RMS norms first, rotated queries and keys, a gated MLP), a norm, a head.

    What comes out, float32, is by `head`:
      causal_lm: (B, T, vocab), of each token the logits of the next one, by a kernel of its own, or, `tied`, the words' embeddings.
      classes: (B, num_classes), a dense layer without bias on the last token that is not `pad_id`.
      none: (B, T, width), all tokens.

    All but the head is under `body`: words, layer_0 ... (query, key, value, out, gate, up, down, norm1, norm2), norm.

    Attributes:
      vocab: V, rows of the embeddings of words.
      kv_heads: heads of keys and values, each shared by as many heads of queries (arXiv 2305.13245); None: `heads`.
      head_dim: entries of a head; None: width / heads.
      positions: the most tokens.
      window: how many tokens a token sees, itself included (Mistral); None: all before it.
      theta: base of the rotations' wavelengths (arXiv 2104.09864).
      rope_scaling: Llama 3.1's stretching of long wavelengths, (factor, low and high frequency factor, original positions);
        None: none.
      qkv_bias, out_bias, mlp_bias: whether these dense layers have biases (Qwen2: the first).
      tied: whether the head's kernel is the words' embeddings.
      pad_id: the id of padding, for head classes; None: the last token is taken.

    Other fields: see `Transformer`; `dropout` has no place in it. Called as `module(ids, train, weight, mask=)`: `mask` (B, T)
    bool or 0/1 says which tokens count, default: all. Positions are counted from the first token, padding included.

    Raises:
      ValueError: as `Transformer`; when called: ids that are not integers (B, T), or more tokens than `positions`.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self, x: jax.Array, train: bool = False, weight: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        tokens, words = Body(**self.fields(), name="body")(x, train, mask)
        if self.head == "causal_lm" and self.tied:
            return transformer.word_logits(tokens, words)
        if self.head == "causal_lm":
            tokens = transformer.dense(self.vocab, self.init_std, self.dtype, "head", bias=False)(tokens)
        if self.head == "classes":
            last = transformer.last_token(tokens, x, self.pad_id)
            tokens = transformer.dense(self.num_classes, self.init_std, self.dtype, "head", bias=False)(last)
        return tokens.astype(jnp.float32)


class Block(nn.Module):
    """Grouped attention with rotated queries and keys, and a gated MLP, each with a residual sum: (B, T, D) to (B, T, D)."""

    width: int
    attention_sizes: tuple[int, int, int]
    mlp: int
    act: str
    window: int | None
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    attention_dropout: float
    eps: float
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, turns: tuple[np.ndarray, np.ndarray], mask: jax.Array | None) -> jax.Array:
        keep = xla_cpu.keep_sums(x)
        x = keep(x + self._attend(rms_norm(self.eps, self.dtype, "norm1")(x), turns, mask))
        return keep(x + self._transform(rms_norm(self.eps, self.dtype, "norm2")(x)))

    def _dense(self, name: str, features: int, bias: bool) -> nn.Dense:
        return transformer.dense(features, self.init_std, self.dtype, name, bias)

    def _attend(self, x: jax.Array, turns: tuple[np.ndarray, np.ndarray], mask: jax.Array | None) -> jax.Array:
        heads, kv_heads, size = self.attention_sizes
        counts = {"query": heads, "key": kv_heads, "value": kv_heads}
        query, key, value = (
            self._dense(name, count * size, self.qkv_bias)(x).reshape(*x.shape[:2], count, size)
            for name, count in counts.items()
        )
        query, key = rotate(query, *turns), rotate(key, *turns)
        key, value = (shared(part, heads // kv_heads) for part in (key, value))
        drop = nn.Dropout(self.attention_dropout, deterministic=False) if self.attention_dropout else None
        mixed = transformer.attention(query, key, value, mask, drop, True, self.window)
        return self._dense("out", self.width, self.out_bias)(mixed.reshape(*x.shape[:2], heads * size))

    def _transform(self, x: jax.Array) -> jax.Array:
        gate = transformer.ACTIVATIONS[self.act](self._dense("gate", self.mlp, self.mlp_bias)(x))
        return self._dense("down", self.width, self.mlp_bias)(gate * self._dense("up", self.mlp, self.mlp_bias)(x))


def shared(part: jax.Array, times: int) -> jax.Array:
    """Gives each head of keys or values to `times` neighboring heads of queries: (B, T, K, E) to (B, T, K * times, E)."""
    if times == 1:
        return part
    batch, tokens, heads, size = part.shape
    spread = jnp.broadcast_to(part[:, :, :, None], (batch, tokens, heads, times, size))
    return spread.reshape(batch, tokens, heads * times, size)


def rotations(
    tokens: int, size: int, theta: float, scaling: tuple[float, float, float, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the cosines and sines by which queries and keys are turned, (tokens, size) float32 each (arXiv 2104.09864).

    Args:
      tokens: T.
      size: entries of a head; entry i turns with entry i + size / 2.
      theta: base of the wavelengths.
      scaling: see `Llama`: wavelengths above original / low are stretched by the factor, those below original / high are kept.
    """
    frequencies = theta ** -(np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    if scaling is not None:
        factor, low, high, original = scaling
        turns = original * frequencies / (2 * math.pi)
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = (1 - smooth) * frequencies / factor + smooth * frequencies
    angles = np.outer(np.arange(tokens, dtype=np.float32), frequencies.astype(np.float32))
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


def rotate(x: jax.Array, cosines: np.ndarray, sines: np.ndarray) -> jax.Array:
    """Turns the entries of heads (B, T, H, E), each with the one half a head further, by its token's angles."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    cosines, sines = (part[None, :, None, :].astype(x.dtype) for part in (cosines, sines))
    return x * cosines + turned * sines


def rms_norm(eps: float, dtype: Any, name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns a root-mean-square norm over the last axis, in float32 (arXiv 1910.07467)."""

    def run(x: jax.Array) -> jax.Array:
        normalized: jax.Array = nn.RMSNorm(eps, name=name)(x.astype(jnp.float32))
        return normalized.astype(dtype or jnp.float32)

    return run

"""What the transformers share: fields, attention, and the block of which all are made.

Parameters are float32 whatever the compute dtype; softmax, layer norm and embeddings work in float32. Two orders of the block are known: norms before the sublayers (ViT, arXiv 2010.11929) and after the residual
sums (arXiv 1706.03762, which BERT and RoBERTa keep).
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tna_jax.models import xla_cpu
from tna_jax.models.layers import check_choice

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
}
"""By the names of Hugging Face's configurations."""


class Transformer(nn.Module):
    """The fields of every transformer; not a network itself.

    Attributes:
      num_classes: C, of head `classes`.
      width: D, entries of a token.
      depth: number of blocks.
      heads: H, must divide the width; None: one for each 64 of the width, at least one.
      mlp: hidden units of a block's two dense layers; None: 4 * width.
      act: their activation, one of `ACTIVATIONS`; `gelu` is the exact one.
      head: what stands on the body, and so what comes out; see the family.
      dropout: share of entries set to 0 after embeddings, sublayers and before a classifier, in training.
      attention_dropout: of attention weights, in training. Both need a key: `apply(..., train=True, rngs={"dropout": key})`.
      eps: of the layer norms.
      init_std: standard deviation of initial kernels and embeddings (biases start at 0).
      remat: keep only each block's inputs for the gradient and compute the rest of it again: less memory, more time.
      dtype: compute dtype, e.g. `jnp.bfloat16`; None: float32. Outputs are float32 in any case.

    Raises:
      ValueError: an unknown head or activation, a number that cannot be, heads that do not divide the width; all are named.
    """

    num_classes: int = 2
    width: int = 192
    depth: int = 12
    heads: int | None = None
    mlp: int | None = None
    act: str = "gelu"
    head: str = "classes"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    eps: float = 1e-12
    init_std: float = 0.02
    remat: bool = False
    dtype: Any = None

    HEADS: ClassVar[tuple[str, ...]] = ("classes", "pooled", "none")

    def __post_init__(self) -> None:
        check_choice("act", self.act, ACTIVATIONS)
        check_choice("head", self.head, self.HEADS)
        names = ["width", "depth", *self._counts(), *(["num_classes"] if self.head == "classes" else [])]
        names += [name for name in ("heads", "mlp") if getattr(self, name) is not None]
        wrong = [f"{name} must be an integer of at least 1, got {getattr(self, name)!r}"
                 for name in names if not _positive(getattr(self, name))]  # fmt: skip
        wrong += [f"{name} must lie in [0, 1), got {getattr(self, name)!r}"
                  for name in ("dropout", "attention_dropout") if not 0 <= _number(getattr(self, name)) < 1]  # fmt: skip
        wrong += [f"{name} must be a number above 0, got {getattr(self, name)!r}"
                  for name in ("eps", "init_std") if not 0 < _number(getattr(self, name)) < float("inf")]  # fmt: skip
        if not wrong and self.width % self.sizes[0] and not getattr(self, "head_dim", None):
            wrong = [f"{self.sizes[0]} heads do not divide the width {self.width}"]
        if wrong:
            raise ValueError("; ".join(wrong))
        super().__post_init__()

    def _counts(self) -> tuple[str, ...]:
        """Further fields that count something."""
        return ()

    def fields(self) -> dict[str, Any]:
        """Returns the fields by name, with which the body is made that a network consists of beside its head."""
        skipped = ("parent", "name")
        return {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in skipped
        }

    @property
    def sizes(self) -> tuple[int, int]:
        """Heads and hidden units of a block."""
        return self.heads or max(1, self.width // 64), self.mlp or 4 * self.width

    def blocks(
        self,
        norm_first: bool,
        bias: bool,
        train: bool,
        causal: bool = False,
        fused: bool = False,
        layer_scale: float | None = None,
    ) -> list["Block"]:
        """Returns the blocks, named layer_0, layer_1, ..."""
        heads, mlp = self.sizes
        dropouts = (self.dropout, self.attention_dropout) if train else (0.0, 0.0)
        make = nn.remat(Block) if self.remat else Block
        fields = (self.width, heads, mlp, self.act, norm_first, bias, dropouts, self.eps, self.init_std, self.dtype,
                  causal, fused, layer_scale)  # fmt: skip
        return [make(*fields, name=f"layer_{i}") for i in range(self.depth)]


def _positive(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def _number(value: Any) -> float:
    """NaN, which lies nowhere, for what is not a number."""
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else float("nan")


class Block(nn.Module):
    """Attention and two dense layers, each with a residual sum: (B, T, D) and a mask (B, T) or None to (B, T, D).

    Dense layers are named query, key, value (or qkv: all three in one), out, up, down, norms norm1 (of the attention) and norm2.
    All of it is one of the fields of `Transformer`; `dropouts` are those of sublayers and of attention weights, 0 outside
    training. `causal`: a token sees itself and those before it. `layer_scale`, with norms first: the initial value of the factors
    layer_scale1 and layer_scale2, one a channel, of the two sublayers' outputs; None: there are none.
    """

    width: int
    heads: int
    mlp: int
    act: str
    norm_first: bool
    bias: bool
    dropouts: tuple[float, float]
    eps: float
    init_std: float
    dtype: Any
    causal: bool = False
    fused: bool = False
    layer_scale: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        first = layer_norm(self.eps, self.dtype, "norm1")
        second = layer_norm(self.eps, self.dtype, "norm2")
        drop = nn.Dropout(self.dropouts[0], deterministic=not self.dropouts[0])
        if self.norm_first:
            keep = xla_cpu.keep_sums(x)
            x = keep(x + drop(self._scaled("layer_scale1", self._attend(first(x), mask))))
            return keep(x + drop(self._scaled("layer_scale2", self._transform(second(x)))))
        x = first(x + drop(self._attend(x, mask)))
        return second(x + drop(self._transform(x)))

    def _dense(self, name: str, features: int, bias: bool = True) -> nn.Dense:
        return dense(features, self.init_std, self.dtype, name, bias)

    def _attend(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        batch, tokens, width = x.shape
        shape = (batch, tokens, self.heads, width // self.heads)
        if self.fused:
            parts = jnp.split(self._dense("qkv", 3 * width, self.bias)(x), 3, axis=-1)
        else:
            parts = [self._dense(name, width, self.bias)(x) for name in ("query", "key", "value")]
        query, key, value = (part.reshape(shape) for part in parts)
        drop = nn.Dropout(self.dropouts[1], deterministic=False) if self.dropouts[1] else None
        mixed = attention(query, key, value, mask, drop, self.causal)
        return self._dense("out", width)(mixed.reshape(x.shape))

    def _transform(self, x: jax.Array) -> jax.Array:
        return self._dense("down", self.width)(ACTIVATIONS[self.act](self._dense("up", self.mlp)(x)))

    def _scaled(self, name: str, x: jax.Array) -> jax.Array:
        return x if self.layer_scale is None else LayerScale(self.layer_scale, name=name)(x)


class LayerScale(nn.Module):
    """Multiplies each channel of (B, T, D) by a learned factor `gamma` (D,), which starts at `initial` (arXiv 2103.17239)."""

    initial: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.constant(self.initial), (x.shape[-1],))
        return x * gamma.astype(x.dtype).reshape(1, 1, -1)


def attention(
    query: Float[Array, "B T H E"],
    key: Float[Array, "B T H E"],
    value: Float[Array, "B T H E"],
    mask: Bool[Array, "B T"] | None = None,
    drop: Callable[[jax.Array], jax.Array] | None = None,
    causal: bool = False,
    window: int | None = None,
) -> Float[Array, "B T H E"]:
    """Computes softmax attention of all tokens to all tokens that count (arXiv 1706.03762, equation 1).

    A token that does not count has weight 0, exactly: nothing of it reaches another token, and no gradient comes back to it. An
    example without any that counts gets their plain mean, which is finite.

    Args:
      query, key, value: (B, T, H, D / H).
      mask: (B, T) bool, which tokens count; None: all.
      drop: applied to the weights (B, H, T, T).
      causal: a token sees itself and those before it only.
      window: of a causal one: how many tokens it sees, itself included; None: all.

    Returns:
      (B, T, H, D / H), of the dtype of `value`; logits and softmax are float32.
    """
    # Batched products of (B, H, T, D / H), since einsum over (B, T, H, D / H) is no faster on the CPU.
    query, key, value = (part.swapaxes(1, 2) for part in (query * query.shape[-1] ** -0.5, key, value))
    logits = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
    if causal:
        place = np.arange(logits.shape[-1])
        ahead = place[None, :] - place[:, None]  # T, T
        seen = (ahead <= 0) & (ahead > -(window or len(place)))
        logits = jnp.where(seen[None, None], logits, np.finfo(np.float32).min)
    if mask is not None:
        logits = jnp.where(mask[:, None, None, :], logits, np.finfo(np.float32).min)
    weights = jax.nn.softmax(logits)
    weights = weights if drop is None else drop(weights)
    mixed: jax.Array = (weights.astype(value.dtype) @ value).swapaxes(1, 2)
    return mixed


def dense(features: int, init_std: float, dtype: Any, name: str, bias: bool = True) -> nn.Dense:
    """Returns a dense layer with normal initial values.

    Args:
      features: entries of its outputs.
      init_std: standard deviation of the kernel's initial values.
      dtype: compute dtype; None: that of inputs and parameters.
      name: of the layer.
      bias: whether it has one.
    """
    return nn.Dense(features, bias, dtype=dtype, kernel_init=nn.initializers.normal(init_std), name=name)


def layer_norm(eps: float, dtype: Any, name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns a layer norm over the last axis, in float32 (two passes: with an epsilon of 1e-12 one is not exact enough)."""

    def run(x: jax.Array) -> jax.Array:
        norm = nn.LayerNorm(eps, use_fast_variance=False, name=name)
        normalized: jax.Array = norm(x.astype(jnp.float32))
        return normalized.astype(dtype or jnp.float32)

    return run


class Pooler(nn.Module):
    """The first token of (B, T, D) through a dense layer and tanh: (B, D)."""

    width: int
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(dense(self.width, self.init_std, self.dtype, "dense")(x[:, 0]))


def check_ids(x: jax.Array, positions: int) -> None:
    """Raises ValueError unless `x` is token ids (B, T) of at most `positions` tokens."""
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"token ids are integers (B, T), got {x.dtype} {x.shape}")
    if x.shape[1] > positions:
        raise ValueError(f"{x.shape[1]} tokens, but there are {positions} positions")


def check_pad(pad_id: Any, vocab: int) -> None:
    """Raises ValueError unless a decoder's `pad_id` is an id or None."""
    if pad_id is not None and not (isinstance(pad_id, int) and 0 <= pad_id < vocab):
        raise ValueError(f"pad_id must be an id, below {vocab} with this vocab, or None, got {pad_id!r}")


def word_logits(tokens: jax.Array, words: jax.Array) -> jax.Array:
    """Computes logits (B, T, V), float32, of tokens (B, T, D) by the words' embeddings (V, D) as a kernel."""
    return jnp.einsum("btd,vd->btv", tokens, words.astype(tokens.dtype), preferred_element_type=jnp.float32)


def last_token(tokens: jax.Array, ids: jax.Array, pad_id: int | None) -> jax.Array:
    """Returns the last of the tokens (B, T, D) whose id (B, T) is not `pad_id`: (B, D)."""
    if pad_id is None:
        return tokens[:, -1]
    counted = jnp.where(jnp.not_equal(ids, pad_id), jnp.arange(ids.shape[1], dtype=jnp.int32)[None], 0)
    return jnp.take_along_axis(tokens, jnp.argmax(counted, axis=1)[:, None, None], axis=1)[:, 0]

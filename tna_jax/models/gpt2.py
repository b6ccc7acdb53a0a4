"""GPT-2 (Radford et al. 2019), a decoder in the form of Hugging Face's, with its heads."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import transformer


class Body(transformer.Transformer):
    """All of a `GPT2` but its head: tokens (B, T, width) after the last norm, and the words (V, width)."""

    act: str = "gelu_new"
    head: str = "causal_lm"
    eps: float = 1e-5
    vocab: int = 50257
    positions: int = 1024
    pad_id: int | None = None

    HEADS: ClassVar[tuple[str, ...]] = ("causal_lm", "classes", "none")

    def _counts(self) -> tuple[str, ...]:
        return ("vocab", "positions")

    def __post_init__(self) -> None:
        super().__post_init__()
        transformer.check_pad(self.pad_id, self.vocab)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        transformer.check_ids(x, self.positions)
        normal = nn.initializers.normal(self.init_std)
        words, positions = (
            nn.Embed(rows, self.width, embedding_init=normal, name=name)
            for rows, name in ((self.vocab, "words"), (self.positions, "positions"))
        )
        places = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape)
        tokens = (words(x) + positions(places)).astype(self.dtype or jnp.float32)  # B, T, width
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
        for block in self.blocks(True, True, train, causal=True, fused=True):
            tokens = block(tokens, None if mask is None else mask.astype(bool))
        return transformer.layer_norm(self.eps, self.dtype, "norm")(tokens), words.embedding


class GPT2(Body):
    """Token ids (B, T) through embeddings, causal blocks with norms first, a last norm, and a head.

    What comes out, float32, is by `head`:
      causal_lm: (B, T, vocab), of each token the logits of the next one: the words' embeddings as a kernel (tied).
      classes: (B, num_classes), a dense layer without bias on the last token that is not `pad_id`.
      none: (B, T, width), all tokens.

    All but the head is under `body`: words, positions, layer_0 ... (with queries, keys and values in one layer, qkv), norm.

    Attributes:
      vocab: V, rows of the embeddings of words.
      positions: rows of the position embeddings: the most tokens.
      pad_id: the id of padding, for head classes; None: the last token is taken.

    Other fields: see `Transformer`. Called as `module(ids, train, weight, mask=)`: `mask` (B, T) bool or 0/1 says which tokens
    count, default: all, as in Hugging Face's. Positions are counted from the first token, padding included.

    Raises:
      ValueError: as `Transformer`; when called: ids that are not integers (B, T), or more tokens than there are positions.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self, x: jax.Array, train: bool = False, weight: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        tokens, words = Body(**self.fields(), name="body")(x, train, mask)
        if self.head == "causal_lm":
            return transformer.word_logits(tokens, words)
        if self.head == "classes":
            last = transformer.last_token(tokens, x, self.pad_id)
            tokens = transformer.dense(self.num_classes, self.init_std, self.dtype, "head", bias=False)(last)
        return tokens.astype(jnp.float32)

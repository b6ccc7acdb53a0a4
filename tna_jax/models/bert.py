"""BERT (arXiv 1810.04805), RoBERTa (1907.11692), DistilBERT (1910.01108) and ELECTRA (2003.10555) encoders in the form of Hugging Face's,
with their heads."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax.models import layers, transformer

KINDS = ("bert", "roberta", "distilbert", "electra")
ACTIVATIONS = {"roberta": jnp.tanh, "distilbert": nn.relu, "electra": transformer.ACTIVATIONS["gelu"]}
"""Of a classifier of two dense layers, by kind; a BERT's has one."""


class Body(transformer.Transformer):
    """All of a `Bert` but its head: tokens (B, T, width), or the pooled first one (B, width); and the words (V, width)."""

    vocab: int = 30522
    positions: int = 512
    types: int = 2
    pad_id: int | None = 0
    kind: str = "bert"
    embedding: int | None = None

    HEADS: ClassVar[tuple[str, ...]] = ("classes", "masked_lm", "pooled", "none")

    def _counts(self) -> tuple[str, ...]:
        return ("vocab", "positions", "types") + (() if self.embedding is None else ("embedding",))

    def __post_init__(self) -> None:
        layers.check_choice("kind", self.kind, KINDS)
        super().__post_init__()
        if self.kind == "distilbert" and self.head == "pooled":
            raise ValueError("a distilbert has no pooler: head must be classes, masked_lm or none")
        if self.kind == "electra" and self.head not in ("classes", "none"):
            raise ValueError(f"an electra has no head {self.head!r} here: head must be classes or none")
        if self.embedding is not None and self.kind != "electra":
            raise ValueError(f"embedding is for kind electra, not {self.kind}")
        if self.pad_id is None and self.kind != "roberta":
            return
        last = min(self.vocab, self.positions - 1) if self.kind == "roberta" else self.vocab
        if not isinstance(self.pad_id, int) or not 0 <= self.pad_id < last:
            raise ValueError(f"pad_id must be an id, below {last} with these vocab and positions, got {self.pad_id!r}")

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, mask: jax.Array | None, types: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        self._check(x)
        normal = nn.initializers.normal(self.init_std)
        width = self.embedding or self.width
        words, positions = (
            nn.Embed(rows, width, embedding_init=normal, name=name)
            for rows, name in ((self.vocab, "words"), (self.positions, "positions"))
        )
        tokens = words(x)  # B, T, width
        if self.kind != "distilbert":
            kinds = nn.Embed(self.types, width, embedding_init=normal, name="types")
            tokens = tokens + kinds(jnp.zeros_like(x) if types is None else types)
        tokens = tokens + positions(self._places(x))
        tokens = transformer.layer_norm(self.eps, self.dtype, "norm")(tokens)
        tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
        if width != self.width:
            tokens = transformer.dense(self.width, self.init_std, self.dtype, "project")(tokens)
        if mask is None and self.pad_id is not None:
            mask = jnp.not_equal(x, self.pad_id)
        for block in self.blocks(False, True, train):
            tokens = block(tokens, None if mask is None else mask.astype(bool))
        if self.head == "pooled" or (self.head == "classes" and self.kind == "bert"):
            tokens = transformer.Pooler(self.width, self.init_std, self.dtype, name="pooler")(tokens)
        return tokens, words.embedding

    def _places(self, x: jax.Array) -> jax.Array:
        """(B, T) the rows of the position embeddings."""
        if self.kind == "roberta":
            first = self.pad_id or 0
            counted = jnp.not_equal(x, first).astype(jnp.int32)
            return jnp.cumsum(counted, axis=1, dtype=jnp.int32) * counted + first
        return jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape)

    def _check(self, x: jax.Array) -> None:
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"token ids are integers (B, T), got {x.dtype} {x.shape}")
        most = self.positions - (self.pad_id or 0) - 1 if self.kind == "roberta" else self.positions
        if x.shape[1] > most:
            raise ValueError(
                f"{x.shape[1]} tokens, but the {self.positions} position embeddings are for at most {most}"
            )


class Bert(Body):
    """Token ids (B, T) through embeddings, blocks with norms after the sums, and a head.

    What comes out, float32, is by `head`:
      classes: (B, num_classes). BERT's is a dense layer on the pooler (dense and tanh of the first token), RoBERTa's is
        dense, tanh, dense on the first token, DistilBERT's dense, ReLU, dense, ELECTRA's dense, GELU, dense.
      masked_lm: (B, T, vocab), or (B, K, vocab) at the positions `at`: dense, activation, norm, then the words' embeddings
        as the last kernel (tied: no second table) and a bias.
      pooled: (B, width), the pooler, which a DistilBERT has not. none: (B, T, width), all tokens.

    All but the head is under `body` (words, positions, types, norm, layer_0 ..., and pooler, which Hugging Face counts to
    the body; RoBERTa's classifier and masked_lm have none). Parameters with head `pooled`: bert_base 109,482,240, roberta_base 124,645,632.

    Attributes:
      vocab: V, rows of the embeddings of words.
      positions: rows of the position embeddings. BERT takes as many tokens; RoBERTa's positions count from pad_id + 1, and
        only the tokens that are not padding, so it takes positions - pad_id - 1 tokens.
      types: token types (segments); a DistilBERT has none.
      pad_id: the id of padding; None (not for RoBERTa): there is none.
      kind: bert, roberta, distilbert or electra (the discriminator; heads classes and none).
      embedding: of kind electra: entries of a word's embedding, which a dense layer `project` takes to the width; None: the width.

    Other fields: see `Transformer`. Called as `module(ids, train, weight, mask=, types=, at=)`: `mask` (B, T) bool or 0/1 says
    which tokens count, default: those that are not `pad_id` (Hugging Face's default is all: give the mask to
    have that); `types` (B, T) ints, default 0; `at` (B, K) ints, positions for masked_lm. `weight` is there for the
    common interface. An id outside the vocabulary gives NaN.

    Raises:
      ValueError: as `Transformer`; when called: ids that are not integers (B, T), or more tokens than there are positions.
    """

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        x: jax.Array,
        train: bool = False,
        weight: jax.Array | None = None,
        mask: jax.Array | None = None,
        types: jax.Array | None = None,
        at: jax.Array | None = None,
    ) -> jax.Array:
        tokens, words = Body(**self.fields(), name="body")(x, train, mask, types)
        common = (self.init_std, self.dtype)
        if self.head == "masked_lm":
            tokens = tokens if at is None else jnp.take_along_axis(tokens, at[:, :, None], axis=1)
            act = "gelu" if self.kind == "roberta" else self.act
            tokens = MaskedHead(self.width, act, self.eps, *common, name="head")(tokens, words)
        elif self.head == "classes" and self.kind != "bert":
            tokens = ClassHead(
                self.num_classes, self.width, ACTIVATIONS[self.kind], self.dropout, *common, name="head"
            )(tokens, train)
        elif self.head == "classes":
            tokens = nn.Dropout(self.dropout, deterministic=not train)(tokens)
            tokens = transformer.dense(self.num_classes, *common, "head")(tokens)
        return tokens.astype(jnp.float32)


class ClassHead(nn.Module):
    """RoBERTa's, DistilBERT's and ELECTRA's: the first token of (B, T, width) through dense, `act`, dense: (B, num_classes).

    RoBERTa's and ELECTRA's have dropout before each dense layer, DistilBERT's before the last.
    """

    num_classes: int
    width: int
    act: Callable[[jax.Array], jax.Array]
    dropout: float
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        first = x[:, 0] if self.act is nn.relu else drop(x[:, 0])
        x = transformer.dense(self.width, self.init_std, self.dtype, "dense")(first)
        return transformer.dense(self.num_classes, self.init_std, self.dtype, "out")(drop(self.act(x)))


class MaskedHead(nn.Module):
    """Tokens (B, T, width) to logits (B, T, V): dense, activation, norm, the words (V, width) as a kernel, a bias."""

    width: int
    act: str
    eps: float
    init_std: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, words: jax.Array) -> jax.Array:
        x = transformer.dense(self.width, self.init_std, self.dtype, "dense")(x)
        x = transformer.layer_norm(self.eps, self.dtype, "norm")(transformer.ACTIVATIONS[self.act](x))
        bias = self.param("bias", nn.initializers.zeros, (words.shape[0],))
        logits = jnp.einsum("btd,vd->btv", x, words.astype(x.dtype), preferred_element_type=jnp.float32)
        return logits + bias.reshape(1, 1, -1)

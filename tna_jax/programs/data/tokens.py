"""Texts and pairs of texts as the arrays that an ensemble trains on: token ids and segments, of one length."""

from collections.abc import Sequence

import numpy as np

from tna_jax.hf.tokenizer import Tokenizer
from tna_jax.programs.data.text import IDS, TYPES, TextSplit


def encode(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], length: int) -> np.ndarray:
    """Texts or pairs of texts as ids and segments (N, 2, `length`) int32, special tokens included, padded on the right.

    A network takes `array[:, 0] != tokenizer.pad` as its attention mask. Raises as `Tokenizer.encode`.
    """
    firsts = [text[0] for text in texts]
    seconds = [text[1] for text in texts if len(text) > 1]
    found = tokenizer.encode(firsts, length, seconds or None)
    made = np.empty((len(texts), 2, length), np.int32)
    made[:, IDS], made[:, TYPES] = found.ids, found.types
    return made


def encode_split(tokenizer: Tokenizer, split: TextSplit, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A split's encoded texts (N, 2, L) and labels (N,)."""
    return encode(tokenizer, split.texts, length), split.labels


def special(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) bool: the ids that are no ordinary tokens (padding, separators, the mask token, unknown)."""
    made = np.zeros(tokenizer.vocab, bool)
    known = [number for number, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special]
    made[[*known, tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask]] = True
    return made

"""Texts and pairs of texts as the arrays that an ensemble trains on: token ids and segments, of one length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tna_jax.hf.tokenizer import Tokenizer
from tna_jax.programs.data.text import TextSplit

IDS, TYPES = 0, 1
"""Rows of an encoded example."""


def encode(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], length: int) -> np.ndarray:
    """Encodes texts or pairs of texts as ids and segments (N, 2, `length`) int32, special tokens included, padded on the right.

    A network takes `array[:, 0] != tokenizer.pad` as its attention mask. Raises as `Tokenizer.encode`.
    """
    firsts = [text[0] for text in texts]
    seconds = [text[1] for text in texts if len(text) > 1]
    encoded = tokenizer.encode(firsts, length, seconds or None)
    array = np.empty((len(texts), 2, length), np.int32)
    array[:, IDS], array[:, TYPES] = encoded.ids, encoded.types
    return array


def encode_split(tokenizer: Tokenizer, split: TextSplit, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a split's encoded texts (N, 2, L) and labels (N,)."""
    return encode(tokenizer, split.texts, length), split.labels


def special(tokenizer: Tokenizer) -> np.ndarray:
    """Returns (V,) bool: the ids that are not ordinary tokens (padding, separators, the mask token, unknown)."""
    chosen = np.zeros(tokenizer.vocab, bool)
    known = [number for number, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special]
    chosen[[*known, tokenizer.pad, tokenizer.cls, tokenizer.sep, tokenizer.mask]] = True
    return chosen


def buckets(encoded: np.ndarray, pad_id: int, lengths: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Groups examples by length, each group cut to the shortest of `lengths` that holds it: less padding to compute with.

    Args:
      encoded: (N, 2, L), ids padded on the right with `pad_id`, and segments.
      lengths: increasing, the last is L.

    Returns:
      For each length that has examples: their rows (n,), and their arrays (n, 2, length). Every row is in one group.
    """
    if list(lengths) != sorted(set(lengths)) or not lengths or lengths[-1] != encoded.shape[2]:
        raise ValueError(f"the lengths of buckets must increase and end with {encoded.shape[2]}, got {list(lengths)}")
    used = (encoded[:, IDS] != pad_id).sum(1)
    which = np.searchsorted(np.asarray(lengths), used)
    groups: list[Any] = [(np.flatnonzero(which == i), length) for i, length in enumerate(lengths)]
    return [(rows, encoded[rows, :, :length]) for rows, length in groups if len(rows)]

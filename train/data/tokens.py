"""Texts as token ids: a WordPiece tokenizer trained on given texts, any `tokenizer.json`, and encoding to fixed lengths.

Needs the `tokenizers` library (extra `hf`), which is imported when it is used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.data.text import TextSplit, pad
from train.errors import UsageError
from train.results import write_json

FILE = "tokenizer.json"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Of the tokenizers that are trained here; their ids are 0 to 4."""
PADDING = ("[PAD]", "<pad>")
MASKS = ("[MASK]", "<mask>")


class Vocabulary(NamedTuple):
    """What a network needs to know of a tokenizer."""

    size: int
    """V."""
    pad_id: int
    mask_id: int | None
    special: np.ndarray
    """(V,) bool: the ids that are no ordinary tokens."""


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UsageError("texts need the tokenizers library: pip install 'tna-jax[hf]'") from error
    return tokenizers


def train(texts: Sequence[str], size: int) -> Any:
    """A lower-casing WordPiece tokenizer (as BERT's, arXiv 1810.04805) of at most `size` entries; the same texts give the same one.

    Raises:
      UsageError: the library is missing, or the size leaves no room for more than the special tokens and single letters.
    """
    library = _library()
    if size < 256:
        raise UsageError(f"--vocab must be at least 256, got {size}")
    made = library.Tokenizer(library.models.WordPiece(unk_token=SPECIAL[1]))
    made.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    trainer = library.trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
    made.train_from_iterator(texts, trainer)
    first, last = SPECIAL[2:4]
    made.post_processor = library.processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, made.token_to_id(token)) for token in (first, last)],
    )
    made.decoder = library.decoders.WordPiece()
    return made


def load(folder: str | Path) -> Any:
    """The tokenizer of a model folder; raises UsageError where there is none that can be read."""
    file = Path(folder) / FILE
    if not file.is_file():
        raise UsageError(f"{folder} has no {FILE}: texts need the tokenizer that the model was trained with")
    try:
        return _library().Tokenizer.from_file(str(file))
    except UsageError:
        raise
    except Exception as error:  # the library raises plain Exceptions
        raise UsageError(f"{file} is no tokenizer: {error}") from error


def save(tokenizer: Any, folder: Path) -> None:
    """Writes `tokenizer.json`, and what `transformers` needs to find it."""
    tokenizer.save(str(folder / FILE))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    about: dict[str, Any] = dict(zip(names, SPECIAL, strict=True))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **about})


def vocabulary(tokenizer: Any) -> Vocabulary:
    """What a network needs to know; raises UsageError for a tokenizer without a padding token."""
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    pad_ids, masks = ([found for token in tokens if (found := tokenizer.token_to_id(token)) is not None]
                      for tokens in (PADDING, MASKS))  # fmt: skip
    if not pad_ids:
        raise UsageError(f"the tokenizer has no padding token ({' or '.join(PADDING)})")
    special = np.zeros(size, bool)
    known = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    special[[number for number in {*known, *pad_ids, *masks} if number < size]] = True
    return Vocabulary(size, pad_ids[0], masks[0] if masks else None, special)


def encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> np.ndarray:
    """Texts or pairs of texts as ids and segments (N, 2, `length`) int32, separators included.

    What is too long is cut before the separators are added: of a pair the longer text first.

    Raises:
      UsageError: the tokenizer has no padding token.
    """
    pad_id = vocabulary(tokenizer).pad_id
    tokenizer.no_padding()
    tokenizer.enable_truncation(length, strategy="longest_first")
    found = tokenizer.encode_batch([text if len(text) > 1 else text[0] for text in texts])
    tokenizer.no_truncation()
    return pad([(one.ids, one.type_ids) for one in found], length, pad_id)


def encode_split(tokenizer: Any, split: TextSplit, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A split's encoded texts (N, 2, L) and labels (N,)."""
    return encode(tokenizer, split.texts, length), split.labels

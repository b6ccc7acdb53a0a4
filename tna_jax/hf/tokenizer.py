"""Text to token ids, with the `tokenizers` library: trained on texts, or read from a model folder.

tokenizer = hf.train_tokenizer(texts, vocab=8000)    # WordPiece as BERT has it; kind="bpe": as RoBERTa
tokenizer.save("encoder")                            # beside config.json; transformers reads it too
batch = hf.load_tokenizer("encoder").encode(texts, length=64)
"""

import dataclasses
import importlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tna_jax.hf import cache
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import read_json, write_atomic

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
WORDS, PIECES, MERGES = "vocab.txt", "vocab.json", "merges.txt"
"""What older folders hold in place of tokenizer.json: BERT's the first, RoBERTa's the other two."""

SPECIAL = {
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "bpe": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
}
"""By kind: the special tokens in the order of their ids, which is BERT's and RoBERTa's."""


class Encoded(NamedTuple):
    """N texts of T tokens, padded on the right."""

    ids: np.ndarray
    """(N, T) int32"""
    mask: np.ndarray
    """(N, T) bool: which are not padding."""
    types: np.ndarray
    """(N, T) int32: 0, or 1 for the second text of a BERT pair."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and the ids of its special tokens."""

    backend: Any
    """A `tokenizers.Tokenizer`."""
    pad: int
    cls: int
    sep: int
    mask: int
    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The tokenizer_config.json that it was read with: saved again as it is."""
    max_length: int | None = None
    """The most tokens that its model takes, special ones too, for those who read it with transformers; None if nobody said."""

    @property
    def vocab(self) -> int:
        """Number of ids."""
        return int(self.backend.get_vocab_size())

    def encode(self, texts: Sequence[str], length: int, pairs: Sequence[str] | None = None) -> Encoded:
        """Converts texts, or pairs of them, to ids with the special tokens around them, cut and padded to `length`.

        Args:
          texts: N of them.
          length: T. Of a pair the longer text is cut first.
          pairs: the second text of each.

        Raises:
          UsageError: a length that does not hold the special tokens, or not as many pairs as texts.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise UsageError(f"{len(pairs)} second texts for {len(texts)}")
        special = self.backend.num_special_tokens_to_add(pairs is not None)
        if length <= special:
            raise UsageError(f"a length of {length} tokens holds no text beside {special} special tokens")
        self.backend.enable_truncation(length)
        try:
            rows = self.backend.encode_batch(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
        finally:
            self.backend.no_truncation()
        ids, types = np.full((len(rows), length), self.pad, np.int32), np.zeros((len(rows), length), np.int32)
        mask = np.zeros((len(rows), length), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], types[i, : len(row)], mask[i, : len(row)] = row.ids, row.type_ids, True
        return Encoded(ids, mask, types)

    def decode(self, ids: Iterable[int]) -> str:
        """Converts ids to text, special tokens left out."""
        return str(self.backend.decode([int(i) for i in ids]))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json: transformers frames, cuts and pads texts and pairs with them as this does.

        What the folder that it was loaded from said in its tokenizer_config.json is kept.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        names = {
            f"{role}_token": self.backend.id_to_token(getattr(self, role)) for role in ("pad", "cls", "sep", "mask")
        }
        kind = next(special for special in SPECIAL.values() if special["cls"] == names["cls_token"])
        if self.backend.token_to_id(kind["unk"]) is not None:
            names["unk_token"] = kind["unk"]
        types = kind is SPECIAL["wordpiece"]
        inputs = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs, "padding_side": "right",
                 "truncation_side": "right", **names} | self.about  # fmt: skip
        if self.max_length is not None:
            about["model_max_length"] = self.max_length
        write_atomic(Path(folder) / FILE, (self.backend.to_str(pretty=True) + "\n").encode())
        write_atomic(Path(folder) / CONFIG, (json.dumps(about, indent=2) + "\n").encode())


def load(folder: str | Path) -> Tokenizer:
    """Reads the tokenizer of a model folder: its tokenizer.json or, without one, BERT's vocab.txt, or RoBERTa's vocab.json and merges.txt.

    A checkpoint's name (`minilm`) stands for its folder, see `tna_jax.hf.pretrained`.

    Without tokenizer.json, `do_lower_case`, `strip_accents`, `tokenize_chinese_chars` and `add_prefix_space` are taken from
    tokenizer_config.json; what is not said there is as in the original models.

    Raises:
      UsageError: none of these files is there, one cannot be read, or it is not one for BERT or RoBERTa.
    """
    folder = cache.locate(folder)
    file = next((folder / name for name in READERS if (folder / name).is_file()), None)
    if file is None or (file.name == PIECES and not (folder / MERGES).is_file()):
        raise UsageError(
            f"there is neither {folder / FILE}, nor {WORDS}, nor {PIECES} with {MERGES} beside it: tna_jax.hf.train_tokenizer "
            "trains one; a checkpoint's is beside its model on the hub"
        )
    about = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not isinstance(about, dict):
        raise UsageError(f"{folder / CONFIG}: expected a JSON object")
    try:
        backend = READERS[file.name](file, about)
    except UsageError:
        raise
    except Exception as error:  # the library raises this type itself
        raise UsageError(f"{file} is not a tokenizer that the tokenizers library reads: {error}") from error
    backend.no_padding()
    backend.no_truncation()
    length = about.get("model_max_length")
    known = length if isinstance(length, int) and length < NO_LIMIT else None
    return dataclasses.replace(_with_ids(backend, str(file)), about=about, max_length=known)


NO_LIMIT = 10**9
"""Lengths from here on stand for none: transformers writes 10^30."""


def _library_file(file: Path, about: dict[str, Any]) -> Any:
    """Reads what the library has written."""
    return _library().Tokenizer.from_file(str(file))


def _bert(file: Path, about: dict[str, Any]) -> Any:
    """Builds a WordPiece tokenizer of a list of words, one a line."""
    library, special = _library(), SPECIAL["wordpiece"]
    model = library.models.WordPiece.from_file(str(file), unk_token=special["unk"], max_input_chars_per_word=100)
    backend = library.Tokenizer(model)
    backend.normalizer = library.normalizers.BertNormalizer(
        lowercase=about.get("do_lower_case", True),
        strip_accents=about.get("strip_accents"),
        handle_chinese_chars=about.get("tokenize_chinese_chars", True),
    )
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    backend.decoder = library.decoders.WordPiece()
    backend.add_special_tokens([token for token in special.values() if backend.token_to_id(token) is not None])
    return _framed(library, backend, "wordpiece", str(file))


def _roberta(file: Path, about: dict[str, Any]) -> Any:
    """Builds a tokenizer of merged bytes, of the pieces' ids and the order of the merges, which stand beside them."""
    library, special = _library(), SPECIAL["bpe"]
    backend = library.Tokenizer(library.models.BPE.from_file(str(file), str(file.parent / MERGES)))
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=about.get("add_prefix_space", False))
    backend.decoder = library.decoders.ByteLevel()
    backend.add_special_tokens([token for token in special.values() if backend.token_to_id(token) is not None])
    return _framed(library, backend, "bpe", str(file))


READERS = {FILE: _library_file, WORDS: _bert, PIECES: _roberta}
"""By the file that a folder holds, the first that is there."""


def _framed(library: Any, backend: Any, kind: str, where: str) -> Any:
    """Makes `backend` put the special tokens around texts and pairs, and returns it."""
    tokenizer, first, last = _with_ids(backend, where), SPECIAL[kind]["cls"], SPECIAL[kind]["sep"]
    second = f"$B:1 {last}:1" if kind == "wordpiece" else f"{last} $B {last}"
    backend.post_processor = library.processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {second}",
        special_tokens=[(first, tokenizer.cls), (last, tokenizer.sep)],
    )
    return backend


def train(
    texts: Iterable[str],
    vocab: int = 8000,
    kind: str = "wordpiece",
    lowercase: bool = True,
    max_length: int | None = None,
) -> Tokenizer:
    """Trains a tokenizer whose vocabulary is learned from `texts`. The same texts give the same one.

    Args:
      texts: read once.
      vocab: the most ids, special tokens included (short texts may give fewer).
      kind: wordpiece (BERT: words cut into the longest known parts) or bpe (RoBERTa: merged bytes, so nothing is unknown).
      lowercase: wordpiece only: lower case, accents stripped.
      max_length: the most tokens that the model takes, kept for those who read the tokenizer with transformers.

    Raises:
      UsageError: unknown kind, or a vocabulary too small for the single characters or bytes.
    """
    if kind not in SPECIAL:
        raise unknown("kind of tokenizer", kind, SPECIAL)
    least = len(SPECIAL[kind]) + (256 if kind == "bpe" else 1)
    if vocab < least:
        raise UsageError(f"a {kind} vocabulary has at least {least} ids, got {vocab}")
    library, special = _library(), SPECIAL[kind]
    options = {"vocab_size": vocab, "special_tokens": list(special.values()), "show_progress": False}
    if kind == "wordpiece":
        backend = _wordpiece(library, texts, options, lowercase)
    else:
        backend = library.Tokenizer(library.models.BPE())
        backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = library.decoders.ByteLevel()
        alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
        backend.train_from_iterator(texts, library.trainers.BpeTrainer(**options, initial_alphabet=alphabet))
    trained = _with_ids(_framed(library, backend, kind, "the trained tokenizer"), "the trained tokenizer")
    return dataclasses.replace(trained, max_length=max_length)


INNER = 0x100000
"""Added to a character that does not begin a word: code points there mean nothing of their own."""


def _wordpiece(library: Any, texts: Iterable[str], options: dict[str, Any], lowercase: bool) -> Any:
    """Trains a WordPiece tokenizer whose parts are merged pair by pair, the most frequent first.

    The library's own WordPieceTrainer does that too, but numbers the inner characters (##a) in the order of a hash table, which
    differs from run to run, and ties with it. Here inner characters are moved to code points of their own, so that its plain BPE
    trainer, which sorts them, can be used, and are moved back in what it has learned. Words with characters beyond the
    basic plane are left out: these become unknown.
    """
    backend = library.Tokenizer(library.models.WordPiece())
    backend.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        counts.update(word for word, _ in words)
    moved = (
        [word[0] + "".join(chr(ord(c) + INNER) for c in word[1:])] * count
        for word, count in counts.items()
        if max(map(ord, word)) < 0xFFFE
    )
    learner = library.Tokenizer(library.models.BPE())
    learner.train_from_iterator(itertools.chain.from_iterable(moved), library.trainers.BpeTrainer(**options))
    vocabulary = {}
    for token, number in learner.get_vocab().items():
        plain = "".join(chr(ord(c) - INNER) if ord(c) >= INNER else c for c in token)
        vocabulary["##" + plain if ord(token[0]) >= INNER else plain] = number
    backend.model = library.models.WordPiece(
        vocabulary, unk_token=SPECIAL["wordpiece"]["unk"], max_input_chars_per_word=100
    )
    backend.decoder = library.decoders.WordPiece()
    backend.add_special_tokens(options["special_tokens"])
    return backend


def _with_ids(backend: Any, where: str) -> Tokenizer:
    for names in SPECIAL.values():
        ids = {role: backend.token_to_id(names[role]) for role in ("pad", "cls", "sep", "mask")}
        if None not in ids.values():
            return Tokenizer(backend, **ids)
    expected = " or ".join(
        " ".join(names[role] for role in ("pad", "cls", "sep", "mask")) for names in SPECIAL.values()
    )
    raise UsageError(f"{where} does not have the special tokens {expected}")


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UsageError("tokenizers are an extra: pip install 'tna-jax[hf]'") from error

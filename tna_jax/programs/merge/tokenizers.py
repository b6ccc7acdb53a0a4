"""Compares tokenizers as maps from token to number: the same number must mean the same token in all models."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError

SHOWN = 10
FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
    "target.spm",
)
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that belong to those of a tokenizer."""
STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""Parts of a tokenizer.json that change which tokens a text becomes."""


class Tokens(NamedTuple):
    """The tokenizer of a folder."""

    ids: dict[str, int] | None
    """None where its files hold none that is read here (sentencepiece's models)."""
    rules: dict[str, Any]
    """What else decides, by name: steps of tokenizer.json, merges, the content of binary files."""


class Difference(NamedTuple):
    """Tokens that differ between two folders."""

    file: str
    values: tuple[str, str]
    models: tuple[str, str]


def lender(described: Path, folders: list[Path], adapter: bool) -> Path | None:
    """Returns the folder whose tokenizer a merge gets where that is not the described model's; None where it is, or there is none.

    Args:
      described: whose configuration the merge gets.
      folders: of the models.
      adapter: whether the first of them is an adapter, folded into the described model: it may have learned tokens that its base does not have.
    """
    if not described.is_dir():
        return None
    if adapter and _has_tokenizer(folders[0]) and (not _has_tokenizer(described) or _differ(folders[0], described)):
        return folders[0]
    return None if _has_tokenizer(described) else next((folder for folder in folders if _has_tokenizer(folder)), None)


def _differ(a: Path, b: Path) -> bool:
    return bool(differences([(str(a), a), (str(b), b)]))


def files(folder: Path) -> list[Path]:
    """Returns the files of a folder's tokenizer."""
    return [folder / name for name in (*FILES, *BESIDE) if (folder / name).is_file()]


def _has_tokenizer(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).is_file() for name in FILES)


def differences(folders: list[tuple[str, Path]]) -> list[Difference]:
    """Returns what differs between the tokenizer of the first folder that has one and each other one's.

    Args:
      folders: what each model is called, and where its tokenizer is. Those without a tokenizer are not compared.
    """
    loaded: dict[Path, Tokens | None] = {path: read(path) for _, path in folders}
    having = [(name, held) for name, path in folders if (held := loaded[path]) is not None]
    wrong: list[Difference] = []
    for name, tokens in having[1:]:
        first_name, first = having[0]
        models = (first_name, name)
        if first.ids is not None and tokens.ids is not None and first.ids != tokens.ids:
            wrong.append(_tokens(first.ids, tokens.ids, models))
        wrong += [
            Difference(rule, (_shown(first.rules[rule]), _shown(tokens.rules[rule])), models)
            for rule in first.rules
            if rule in tokens.rules and first.rules[rule] != tokens.rules[rule]
        ]
    return wrong


def read(folder: Path) -> Tokens | None:
    """Reads the tokenizer of a folder: tokenizer.json, else vocab.json or vocab.txt with what was added; None without one.

    Raises:
      UsageError: a file is damaged.
    """
    if not _has_tokenizer(folder):
        return None
    ids: dict[str, int] | None = None
    rules: dict[str, Any] = {}
    try:
        if (folder / "tokenizer.json").is_file():
            ids, rules = _fast(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
        elif (folder / "vocab.json").is_file():
            ids = dict(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
        elif (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
            ids = {line.rstrip("\r"): number for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
        if ids is not None and (folder / "added_tokens.json").is_file():
            ids |= json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
        if (folder / "merges.txt").is_file():
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            rules["merges"] = _digest([line for line in lines if line.strip() and not line.startswith("#version")])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"cannot read the tokenizer of {folder}: {type(error).__name__} {error}") from error
    if ids is None:
        for name in FILES:
            if (folder / name).is_file():
                rules[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return Tokens(ids, rules)


def _fast(content: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """Returns the map and the rules of a tokenizer.json."""
    model = content["model"]
    vocab = model.get("vocab", {})
    rules: dict[str, Any] = {}
    if isinstance(vocab, dict):
        ids = dict(vocab)
    else:
        ids = {piece: number for number, (piece, _) in enumerate(vocab)}  # unigrams: their scores decide too
        rules["scores of the unigrams"] = _digest([f"{score:.6g}" for _, score in vocab])
    ids |= {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    if "merges" in model:
        pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        rules["merges"] = _digest(pairs)
    rules |= {f"tokenizer.json:{step}": content.get(step) for step in STEPS}
    return ids, rules


def _digest(lines: list[str]) -> str:
    return f"{len(lines)} with SHA-256 {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"


def _tokens(ours: dict[str, int], theirs: dict[str, int], models: tuple[str, str]) -> Difference:
    """Names the first tokens whose numbers differ."""
    wrong = sorted(_changed(ours, theirs), key=lambda token: ours.get(token, theirs.get(token, 0)))
    said = [" ".join(f"{token!r}={ids.get(token, 'none')}" for token in wrong[:SHOWN]) for ids in (ours, theirs)]
    more = " ..." if len(wrong) > SHOWN else ""
    count = f"numbers of {len(wrong)} token{'s' if len(wrong) > 1 else ''}"
    return Difference(count, (said[0] + more, said[1] + more), models)


def _changed(ours: dict[str, int], theirs: dict[str, int]) -> Iterator[str]:
    yield from (token for token, number in ours.items() if theirs.get(token) != number)
    yield from (token for token in theirs if token not in ours)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:96]} ..."

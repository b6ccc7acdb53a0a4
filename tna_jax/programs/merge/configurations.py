"""Compares the configurations of models field by field: what changes the function is refused, the rest is told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.merge import tokenizers
from tna_jax.programs.merge.field_rules import meaning, missing_meaning
from tna_jax.programs.merge.unmergeable import folder

MISSING = "not written"
WIDTH = 100
COMPARED = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "modules.json",
)
"""Files of a folder that are compared, beside the `config.json` of inner folders, chat templates and the tokenizer's map."""
ONLY_DEFAULTS = ("generation_config.json",)
"""Files that hold defaults only, which a caller can set: told, never refused."""
HEAD = ("architectures", "id2label", "label2id", "num_labels", "problem_type")
"""Fields in which a model may differ from the base that it was fine-tuned from."""
BASE_OF_ADAPTER = "base_model_name_or_path"
"""Field of `adapter_config.json`: the model that an adapter was trained on."""
ONCE = ("added_tokens_decoder", "extra_special_tokens")
"""Fields that the tokenizer's map holds too."""


class Difference(NamedTuple):
    """A field in which two models differ."""

    field: str
    """As `--allow-different` takes it."""
    file: str
    values: tuple[str, str]
    models: tuple[str, str]
    changes_function: bool

    def __str__(self) -> str:
        place = (
            "" if self.file == "config.json" else f": {self.file}" if self.field == "tokenizer" else f" of {self.file}"
        )
        return f"{self.field}{place} is {self.values[0]} in {self.models[0]} but {self.values[1]} in {self.models[1]}"


def require_same_function(
    checkpoints: list[Checkpoint], base: Checkpoint | None, allowed: tuple[str, ...]
) -> list[Difference]:
    """Returns the differences that are allowed or harmless.

    Args:
      checkpoints: models in folders, or files beside their configuration; those without one are not compared.
      base: what they were fine-tuned from; it may have another head.
      allowed: fields that may differ.

    Raises:
      UsageError: fields differ that change what the models compute; each is named with both values.
    """
    every = differences(checkpoints)
    if base is not None:
        of_base = differences([checkpoints[0], base])
        every += [d for d in of_base if d.field not in HEAD and (d.file == "config.json" or d.field == "tokenizer")]
    every += _bases_of_adapters(checkpoints)
    refused = [
        d for d in every if d.changes_function and d.field not in allowed and d.field.split(".")[0] not in allowed
    ]
    if refused:
        fields = " ".join(dict.fromkeys(d.field for d in refused))
        raise UsageError(
            "\n  ".join(
                ["the models do not compute the same function of their weights:", *map(str, refused),
                 f"if the merge is meant all the same: --allow-different {fields}"]
            )
        )  # fmt: skip
    return every


def differences(checkpoints: list[Checkpoint]) -> list[Difference]:
    """Returns in which fields the models differ from the first that has a configuration, file by file."""
    found: list[Difference] = []
    folders = [(str(checkpoint.path), folder(checkpoint)) for checkpoint in checkpoints]
    for file in _files([path for _, path in folders]):
        having = [(name, _read(path / file)) for name, path in folders if (path / file).is_file()]
        kinds = [str(value.get("model_type", "")) for _, value in having if isinstance(value, dict)]
        for name, value in having[1:]:
            for field, ours, theirs in _fields(having[0][1], value):
                if file == "tokenizer_config.json" and field.split(".")[0] in ONCE:
                    continue
                found += _difference(file, field, ours, theirs, (having[0][0], name), kinds[0] if kinds else "")
    return _labels_once(found) + [
        Difference("tokenizer", d.file, d.values, d.models, True) for d in tokenizers.differences(folders)
    ]


def _bases_of_adapters(checkpoints: list[Checkpoint]) -> list[Difference]:
    """Returns adapters that were trained on another model than the first of them, by the last part of its name."""
    named = [
        (str(checkpoint.path), config[BASE_OF_ADAPTER]) for checkpoint in checkpoints
        if (file := folder(checkpoint) / "adapter_config.json").is_file() and isinstance(config := _read(file), dict)
        and isinstance(config.get(BASE_OF_ADAPTER), str) and config[BASE_OF_ADAPTER]
    ]  # fmt: skip
    return [
        Difference(
            BASE_OF_ADAPTER, "adapter_config.json", (_shown(named[0][1]), _shown(base)), (named[0][0], name), True
        )
        for name, base in named[1:]
        if Path(base).name.lower() != Path(named[0][1]).name.lower()
    ]


def _difference(file: str, field: str, ours: Any, theirs: Any, models: tuple[str, str], kind: str) -> list[Difference]:
    missing = ours is MISSING or theirs is MISSING
    means = meaning(field, kind)
    if missing and means == "function":
        means = missing_meaning(field, theirs if ours is MISSING else ours)
    if field == "chat_template":
        means = "training" if missing else "function"
    if means == "origin":
        return []
    changes = means == "function" and Path(file).name not in ONLY_DEFAULTS
    return [Difference(field, file, (_shown(ours), _shown(theirs)), models, changes)]


def _labels_once(found: list[Difference]) -> list[Difference]:
    """Drops `label2id` where `id2label` of the same models differs: it is the same table from the other side."""
    labels = {d.models for d in found if d.field == "id2label"}
    return [d for d in found if not (d.field in ("label2id", "num_labels") and d.models in labels)]


def _files(folders: list[Path]) -> list[str]:
    """Returns the names of what is compared, those of inner folders (`1_Pooling/config.json`) and chat templates too."""
    inner = {
        str(file.relative_to(path)) for path in folders if path.is_dir()
        for file in [*path.glob("*/config.json"), *path.glob("*.jinja"), path / "sentence_bert_config.json"]
        if file.is_file() and not file.parent.name.startswith(("checkpoint-", "."))
    }  # fmt: skip
    return [*COMPARED, *sorted(inner)]


def _read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        return {"chat_template": text} if file.suffix == ".jinja" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error


def _fields(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the fields whose values differ, nested ones by their path with dots; labels as one."""
    nested = isinstance(ours, dict) and isinstance(theirs, dict) and "content" not in ours
    if nested and not prefix.endswith(("id2label", "label2id")):
        for key in sorted({*ours, *theirs}):
            yield from _fields(ours.get(key, MISSING), theirs.get(key, MISSING), f"{prefix}.{key}" if prefix else key)
    elif _content(ours) != _content(theirs):
        yield prefix or "content", ours, theirs


def _content(value: Any) -> Any:
    """Returns a special token's text, whichever of its two forms a file has."""
    return value["content"] if isinstance(value, dict) and isinstance(value.get("content"), str) else value


def _shown(value: Any) -> str:
    text = value if value is MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."

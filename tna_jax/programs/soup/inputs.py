"""Whether given models are of one network, take the same inputs and name their outputs alike: else an average of them means nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from tna_jax.hf import cache, tokenizer
from tna_jax.io.errors import UsageError
from tna_jax.programs.training import backbone


def require_alike(folders: tuple[str, ...], configs: list[dict[str, Any]]) -> None:
    """Raises UsageError that names every model which reads images or texts, or numbers its classes, otherwise than the first.

    Args:
      folders: of the models.
      configs: what their config.json say.
    """
    first, *others = (_described(cache.locate(folder), config) for folder, config in zip(folders, configs, strict=True))
    wrong = [
        f"{folder} has {what} than {folders[0]} ({theirs} instead of {ours})"
        for folder, other in zip(folders[1:], others, strict=True)
        for what, theirs, ours in (
            (what, *(_short(one[what]) for one in (other, first)))
            for what in first.keys() & other.keys()
            if first[what] != other[what]
        )
    ]
    if wrong:
        raise UsageError(f"--models: {'; '.join(wrong)}: an average of such models is none")


def of_another_network(module: Any, first: Any, name: str, data: str) -> str:
    """Returns in what a model's network differs from the first one's, or that it has other classes than the data; empty if in nothing.

    Args:
      module: of the model.
      first: of the first model, with as many classes as the data.
      name: of the first model.
      data: in words.
    """
    if module.num_classes != first.num_classes:
        return f"has {module.num_classes} classes, the data {first.num_classes} ({data})"
    ours, theirs = (one.clone(dtype=None, remat=False) for one in (first, module))
    if type(ours) is type(theirs) and ours == theirs:
        return ""
    fields = [
        field.name
        for field in dataclasses.fields(ours)
        if field.name not in ("name", "parent") and hasattr(theirs, field.name)
    ]
    differing = [
        f"{field} {getattr(theirs, field)} instead of {getattr(ours, field)}"
        for field in fields
        if getattr(theirs, field) != getattr(ours, field)
    ]
    return f"is another network than {name}: {', '.join(differing) or type(theirs).__name__}"


def _described(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What a folder says of inputs and outputs; nothing of what it does not say."""
    found: dict[str, Any] = {}
    if (scale := backbone.scaling(folder)) is not None:
        found["another scaling of images"] = scale
    if any((folder / name).is_file() for name in tokenizer.READERS):
        found["other tokens"] = tokenizer.load(folder).backend.get_vocab()
    names = config.get("id2label")
    if isinstance(names, dict) and not all(name == f"LABEL_{number}" for number, name in names.items()):
        found["another order of classes"] = {str(number): name for number, name in names.items()}
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."

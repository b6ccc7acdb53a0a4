"""The metadata that `tna merge` writes, which describe the merge and not its first model; and which files it may write."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.json_files import read_json
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.programs.cli.options import AnchorOptions, DataOptions, ModelOptions
from tna_jax.programs.merge import folder_output
from tna_jax.programs.merge.verify_anchors import ABOUT

PRETRAINING = "pretraining.json"
"""Record of how `tna pretrain` made a folder; the same name as `tna_jax.programs.training.backbone.ABOUT`, which needs JAX."""
OF_MODEL = ("seed", "ratio", "method", "start", "order")
"""What an exported file says of its model: the fields of `tna_jax.programs.training.initial_models.ModelSpec`, which needs JAX."""
NOTE = "tna_merge"
"""Name of the metadata that says of what a file was merged: a JSON object of models and weights."""
OF_ONE_MODEL = (PRETRAINING, "README.md", "trainer_state.json", "training_args.json")
"""Files of a folder that tell how one model came about: a merge is not that model, and gets no copy."""
OF_FORMAT = ("format",)
"""Metadata that say how a file is read."""
FACTS = ("seed", "seeds", "ratio", "ratios", *(field.name for field in dataclasses.fields(AnchorOptions)))
"""Options that say which anchors a model has: of a merge they hold only where that was verified."""


def metadata(
    checkpoints: list[Checkpoint], file: str, weights: np.ndarray, verified: bool, how: dict[str, Any]
) -> dict[str, str]:
    """Returns the metadata of a merge: what all inputs say alike, how its file is read, and of what it was made.

    Args:
      checkpoints: the inputs.
      file: that is written; where the first has one of that name, its metadata are the ones to keep.
      weights: (M,)
      verified: whether all inputs have the anchors that their common recipe names, so that the merge has them too.
      how: the method and its options; empty for averages.
    """
    held = [text for checkpoint in checkpoints for text in checkpoint.metadata.values()]
    first = checkpoints[0].metadata.get(file, next(iter(checkpoints[0].metadata.values())))
    kept = {key: text for key, text in first.items() if all(other.get(key) == text for other in held)}
    kept |= {key: first[key] for key in OF_FORMAT if key in first}
    names = [checkpoint.path.name for checkpoint in checkpoints]
    note = {"models": names, "weights": _shares(weights), **how}
    about = _about([text.get(ABOUT) for text in held], note, verified)
    kept = {key: text for key, text in kept.items() if key not in (ABOUT, NOTE)}
    return kept | ({ABOUT: json.dumps(about)} if about else {}) | {NOTE: json.dumps(note)}


def _about(texts: list[str | None], note: dict[str, Any], verified: bool) -> dict[str, Any] | None:
    """Returns of a merge what `tna export` says of a model; None unless all models are of one network and data."""
    try:
        described = [json.loads(text or "") for text in texts]
        configs, models = [text["config"] for text in described], [text["model"] for text in described]
        same = _alike(configs)
        network_options = [field.name for kind in (ModelOptions, DataOptions) for field in dataclasses.fields(kind)]
        if any(name not in same and name in config for name in network_options for config in configs):
            return None
        facts = {key: value for key, value in _alike(models).items() if key in OF_MODEL} if verified else {}
        same = {key: value for key, value in same.items() if verified or key not in FACTS}
        mask = described[0]["mask"] if verified else None
        merged = {"merged": note["models"], "weights": note["weights"]}
        networks = [text.get("network") for text in described]
        network = (
            {"network": networks[0]} if networks[0] is not None and all(n == networks[0] for n in networks) else {}
        )
        return {"format": FORMAT, "config": same, "model": {**merged, **facts}, "mask": mask, **network}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _shares(weights: np.ndarray) -> list[float]:
    """Returns weights divided by their sum, or as they are where that is 0 (task vectors)."""
    shares: list[float] = (weights / weights.sum() if weights.sum() else weights).tolist()
    return shares


def _alike(values: list[dict[str, Any]]) -> dict[str, Any]:
    missing = object()
    return {key: value for key, value in values[0].items() if all(other.get(key, missing) == value for other in values)}


def pretraining(checkpoints: list[Checkpoint], weights: np.ndarray) -> dict[str, Any] | None:
    """Returns the record of a merge of folders: those of the pretraining of its models, if any has one."""
    files = [checkpoint.path / PRETRAINING for checkpoint in checkpoints]
    records = [read_json(file) if file.is_file() else None for file in files]
    if not any(records):
        return None
    names = [checkpoint.path.resolve().name for checkpoint in checkpoints]
    models = [
        {"name": name, "weight": float(weight), "pretraining": record}
        for name, weight, record in zip(names, _shares(weights), records, strict=True)
    ]
    return {"in_words": f"a merge of {', '.join(names)}", "merged": models}


def others(checkpoint: Checkpoint) -> list[Path]:
    """Returns the files of a folder that a merge gets a copy of: configuration, tokenizer, those of inner folders (1_Pooling)."""
    folder = checkpoint.path
    if not folder.is_dir():
        return []
    inner = [file for path in sorted(folder.iterdir()) if _describes(path) for file in sorted(path.rglob("*"))]
    return [
        file for file in [*sorted(folder.iterdir()), *inner]
        if file.is_file() and not folder_output.is_weights(file.name) and not file.name.startswith(".")
        and file.name not in (folder_output.REPORT, *OF_ONE_MODEL)
    ]  # fmt: skip


def _describes(path: Path) -> bool:
    """Whether a folder inside a model's folder belongs to the model: not an earlier checkpoint, nor what a hub keeps."""
    return path.is_dir() and not path.name.startswith((".", "checkpoint-", "runs", "onnx", "openvino", "logs"))


def require_apart(written: Iterable[Path], checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError that names every file which would be written over an input."""
    inputs = [file for checkpoint in checkpoints for file in _files(checkpoint)]
    held = {_identity(file): file for file in inputs}
    over = [str(file) for file in written if file.exists() and _identity(file) in held]
    if over:
        raise UsageError(f"this would write over what is to be merged: {', '.join(over)}; name another --out")


def require_different(checkpoints: list[Checkpoint]) -> None:
    """Raises UsageError that names models which are listed twice: they would count as two."""
    seen: dict[frozenset[tuple[int, int]], Path] = {}
    twice = []
    for checkpoint in checkpoints:
        key = frozenset(_identity(tensor.file) for tensor in checkpoint.tensors.values())
        if key in seen:
            twice.append(f"{checkpoint.path} is {seen[key]}" if checkpoint.path != seen[key] else str(seen[key]))
        seen.setdefault(key, checkpoint.path)
    if twice:
        raise UsageError(f"named more than once: {', '.join(twice)}; name each model once (--weights weights them)")


def _files(checkpoint: Checkpoint) -> list[Path]:
    if not checkpoint.path.is_dir():
        return [checkpoint.path]
    return [file for file in checkpoint.path.rglob("*") if file.is_file()]


def _identity(file: Path) -> tuple[int, int]:
    """Returns what is equal for all names of one file, links too."""
    status = file.stat()
    return status.st_dev, status.st_ino


def kinds(checkpoints: list[Checkpoint]) -> str:
    """Says which kinds of model folders hold, where they differ: `a is a vit, b is a bert`; else nothing."""
    types = {}
    for checkpoint in checkpoints:
        try:
            types[checkpoint.path] = json.loads((checkpoint.path / "config.json").read_bytes())["model_type"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    if len({str(kind) for kind in types.values()}) < 2:
        return ""
    return ", ".join(f"{path} is a {kind}" for path, kind in types.items())

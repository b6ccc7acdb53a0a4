"""Writes a model of a run as a Hugging Face folder: weights, config.json with the classes, how images are scaled, what the run was."""

from pathlib import Path
from typing import Any

import flax.linen as nn

from tna_jax.hf import config as hf_config
from tna_jax.hf import saving
from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.programs.data import Dataset
from tna_jax.programs.training import backbone


def require(module: nn.Module | None) -> None:
    """Raises UsageError for a network that has no Hugging Face form; None is one of the user's own."""
    if module is None:
        raise UsageError("--format hf: a network of your own has no Hugging Face form; use --format safetensors")
    try:
        hf_config.type_of(module)
    except UsageError as error:
        raise UsageError(f"--format hf: {error}; use --format safetensors") from error


def write_folder(
    folder: Path, module: Any, params: Params, about: dict[str, Any], data: Dataset, overwrite: bool
) -> None:
    """Writes the folder.

    Args:
      folder: created if it is not there.
      module: a network that `require` lets pass.
      params: of one model.
      about: what is written beside the model, `in_words` among it.
      data: what it was trained on.
      overwrite: replace the model in the folder.
    """
    labels = data.class_names or tuple(f"LABEL_{i}" for i in range(data.num_classes))
    config = {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "hidden_dropout_prob": module.dropout,
        "attention_probs_dropout_prob": module.attention_dropout,
    }
    saving.save(folder, module, params, config, overwrite=overwrite)
    images = bool(data.mean) and len(data.image_shape) == 3
    backbone.write_about(folder, about, data if images else None)

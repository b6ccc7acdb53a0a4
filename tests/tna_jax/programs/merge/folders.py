"""Tiny Hugging Face folders, for the tests of `tna merge`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tna_jax.io import tensor_headers

CONFIG: dict[str, Any] = {
    "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 8, "num_attention_heads": 2,
    "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0, "id2label": {"0": "NEG", "1": "POS"},
    "label2id": {"NEG": 0, "POS": 1},
}  # fmt: skip
BASE, HEAD = "bert.layer.weight", "classifier.weight"


def tensors(seed: int, apart: float = 0.1, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """A layer near that of all others, whose first row all share, and a head."""
    same, own = np.random.default_rng(99), np.random.default_rng(seed)
    layer = same.normal(size=(8, 8)) + apart * own.normal(size=(8, 8))
    layer[0] = 1.5
    return {BASE: layer.astype(dtype), HEAD: (same.normal(size=(2, 8)) + apart * own.normal(size=(2, 8))).astype(dtype)}


def folder(
    path: Path, seed: int, *, held: dict[str, np.ndarray] | None = None, shards: int = 1, vocabulary: list[str] | None = None,
    **changes: Any,
) -> str:  # fmt: skip
    """A model folder of one file, or of several with their index; a change of None takes a field out."""
    path.mkdir(parents=True)
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    (path / "vocab.txt").write_text("\n".join(vocabulary or [f"word{i}" for i in range(12)]))
    weights = tensors(seed) if held is None else held
    if shards == 1:
        save_file(weights, path / tensor_headers.SINGLE, {"format": "pt"})
        return str(path)
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: weights[name] for name in sorted(weights)[i::shards]}
        save_file(part, path / file, {"format": "pt"})
        where |= dict.fromkeys(part, file)
    (path / tensor_headers.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return str(path)

"""Small safetensors files, single and sharded, for the tests of `tna merge`, and its refusals."""

import json

import numpy as np
from safetensors.numpy import save_file

from tna_jax.io import tensor_headers
from tna_jax.programs.cli.main import main

MODELS = 3


def tensors(seed: int, dtype=np.float32) -> dict[str, np.ndarray]:
    """Two floating-point tensors whose first halves are equal in all models, a scalar, an empty one, and integers."""
    same, own = np.random.default_rng(99), np.random.default_rng(seed)
    made = {}
    for name, shape in (("body.weight", (40, 25)), ("head", (64,))):
        leaf = np.concatenate([draws.normal(size=np.prod(shape) // 2) for draws in (same, own)])
        made[name] = leaf.reshape(shape).astype(dtype)
    return made | {"scale": np.array(own.normal(), dtype), "none": np.zeros((0, 3), dtype), "ids": np.arange(5) + 3}


def fails(capsys, *words: str) -> str:
    assert main(["merge", *words]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Traceback" not in message
    return message


def shard(folder, seed):
    folder.mkdir()
    own = tensors(seed)
    parts = {
        "model-00001-of-00002.safetensors": ["head", "ids"],
        "model-00002-of-00002.safetensors": ["body.weight", "none", "scale"],
    }
    for name, held in parts.items():
        save_file({key: own[key] for key in held}, folder / name, {"format": "pt"})
    where = {key: name for name, held in parts.items() for key in held}
    (folder / tensor_headers.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"old")

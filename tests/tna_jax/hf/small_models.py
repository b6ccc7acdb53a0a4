"""Tiny networks of every architecture with drawn parameters, and model folders of them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from tna_jax import models, trees
from tna_jax.hf import loading
from tna_jax.hf.config import shapes_of
from tna_jax.hf.model_types import ARCHITECTURES, architecture
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError

SIZES = {"width": 8, "depth": 1, "heads": 2, "mlp": 12}
TEXT = SIZES | {"vocab": 11, "positions": 9}
IMAGE = SIZES | {"patch": 4, "image_size": 8}
NETWORKS = {
    "vit": ("vit", IMAGE),
    "deit": ("vit", IMAGE | {"distilled": True}),
    "dinov2": ("dinov2", IMAGE | {"mlp": 16}),
    "dinov2_with_registers": ("dinov2", IMAGE | {"mlp": 16, "registers": 2}),
    "electra": ("electra", TEXT | {"embedding": 6}),
    "llama": ("llama", TEXT | {"kv_heads": 1, "head_dim": 4}),
}
"""By architecture, the network and its options; of all others the network has the architecture's name."""


def network(kind, head):
    name, options = NETWORKS.get(architecture(kind), (architecture(kind), TEXT))
    biases = {"qkv_bias": True} if kind == "qwen2" else {}
    return name, options | biases | {"head": head}


MODELS = {case: network(*case) for case in ARCHITECTURES}
KEY = jax.random.key(0)


def make(kind, head, **more):
    name, options = MODELS[kind, head]
    module = models.create(name, **options | more)
    draws = np.random.default_rng(0)
    leaves = {path: draws.normal(size=shape).astype(np.float32) for path, shape in shapes_of(module, 3).items()}
    return module, loading.tree(leaves)


def flat(tree):
    return {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def same(one, two):
    one, two = flat(one), flat(two)
    return one.keys() == two.keys() and all(one[n].tobytes() == two[n].tobytes() for n in one)


def refused(*arguments, **options) -> str:
    with pytest.raises(UsageError) as error:
        loading.load(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def edited(folder, change):
    """A folder with its arrays or its config.json changed."""
    held = safetensors.read(f"{folder}/model.safetensors")[0]
    config = json.loads(Path(folder, "config.json").read_text())
    change(held, config)
    safetensors.write(f"{folder}/model.safetensors", held)
    Path(folder, "config.json").write_text(json.dumps(config))

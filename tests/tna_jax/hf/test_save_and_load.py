"""Hugging Face folders are written and read without torch: half precision, shards, the configuration, the hub."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.hf.small_models import edited, flat, make, refused, same
from tna_jax import models
from tna_jax.hf import config as hf_config
from tna_jax.hf import hub as hf_hub
from tna_jax.hf import loading, tokenizer
from tna_jax.io import safetensors, tensor_headers
from tna_jax.io.errors import UsageError
from tna_jax.programs.training import backbone


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_into_float32_and_written_back_bit_for_bit(dtype):
    module, params = make("bert", "classes")
    loading.save("one", module, params, dtype=dtype)
    assert {str(array.dtype) for array in safetensors.read("one/model.safetensors")[0].values()} == {dtype}
    found = loading.load("one")
    assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype("float32")}
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.dtype(dtype)).astype(np.float32), params)
    assert same(found.params, rounded) and not same(found.params, params)
    loading.save("two", found.module, found.params, found.config, dtype=dtype)
    for name in ("config.json", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_shards_are_read_and_written():
    module, params = make("roberta", "masked_lm")
    files = loading.save("shards", module, params, shard_bytes=700)
    index = json.loads(Path("shards", tensor_headers.INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 3 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert {file.name for file in files} == {*shards, tensor_headers.INDEX, "config.json"}
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in flat(params).values())
    for shard in shards:
        held = safetensors.read(f"shards/{shard}")[0]
        assert sum(array.nbytes for array in held.values()) <= 700 or len(held) == 1
    assert same(loading.load("shards").params, params)
    Path("shards", shards[1]).unlink()
    assert f"cannot read shards/{shards[1]}" in refused("shards")
    loading.save("shards", module, params, overwrite=True)  # in one file: no shard is left beside it
    assert sorted(file.name for file in Path("shards").iterdir()) == ["config.json", "model.safetensors"]
    assert same(loading.load("shards").params, params)


def test_nothing_is_written_over_or_of_the_wrong_form():
    module, params = make("vit", "classes")
    loading.save("one", module, params)
    before = Path("one/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"one holds a model already \(config.json, model.safetensors\)"):
        loading.save("one", module, params)
    many = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params)
    with pytest.raises(UsageError, match=r"head/bias \(\[2, 2\] instead of \[2\]\).* one model is saved"):
        loading.save("one", module, many, overwrite=True)
    with pytest.raises(UsageError, match="unknown dtype 'float3'.*float32"):
        loading.save("one", module, params, dtype="float3", overwrite=True)
    with pytest.raises(UsageError, match="MLP has no Hugging Face form"):
        loading.save("one", models.create("mlp", num_classes=2), params, overwrite=True)
    large = jax.tree.map(lambda leaf: leaf * 0 + 1e5, params)
    with pytest.raises(UsageError, match=r"float16 holds numbers up to 6.55e\+04.*head/bias \(1e\+05\)"):
        loading.save("one", module, large, dtype="float16", overwrite=True)
    assert Path("one/model.safetensors").read_bytes() == before


def test_what_the_configuration_says_beyond_our_fields_is_kept():
    module, params = make("bert", "classes")
    loading.save("one", module, params)
    labels = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    edited(
        "one",
        lambda held, config: config.update(labels | {"gradient_checkpointing": False, "hidden_dropout_prob": 0.1}),
    )
    found = loading.load("one")
    assert found.module.dropout == 0 and loading.load("one", dropout=0.2).module.dropout == 0.2
    loading.save("two", found.module, found.params, found.config)
    kept = json.loads(Path("two/config.json").read_text())
    assert kept["id2label"] == labels["id2label"] and kept["gradient_checkpointing"] is False
    assert kept["hidden_dropout_prob"] == 0.1


def test_fetching_asks_for_what_is_read_and_says_what_went_wrong(monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    asked = {}

    def download(repo, **options):
        asked.update(repo=repo, **options)
        if repo == "gone":
            raise OSError("no such repository\nmore")
        if repo == "a/b":
            loading.save(options["local_dir"], *make("vit", "classes"))

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert same(loading.load(loading.fetch("a/b", "got", revision="main")).params, make("vit", "classes")[1])
    assert asked["revision"] == "main" and set(asked["allow_patterns"]) == set(hf_hub.FILES)
    read = {
        hf_config.CONFIG,
        backbone.IMAGES,
        tokenizer.FILE,
        tokenizer.CONFIG,
        tokenizer.WORDS,
        tokenizer.PIECES,
        tokenizer.MERGES,
    }
    assert read < set(hf_hub.FILES)
    with pytest.raises(UsageError, match="cannot fetch gone: no such repository$"):
        loading.fetch("gone", "x")
    with pytest.raises(UsageError, match="holds neither model.safetensors"):
        loading.fetch("a/torch-only", "x")

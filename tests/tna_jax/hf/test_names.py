"""Names of parameters in Hugging Face folders: each leaf has one, and those of older files are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.hf.names_by_hand import BODY, OTHER_PREFIX, names_of
from tests.tna_jax.hf.small_models import MODELS, edited, flat, make, refused, same
from tna_jax.hf import loading, validation
from tna_jax.hf import names as hf_names
from tna_jax.hf.model_types import ARCHITECTURES, architecture
from tna_jax.io import safetensors


@pytest.mark.parametrize(
    ("kind", "head"),
    slow_but(
        [
            ("deit", "classes"),
            ("dinov2_with_registers", "classes"),
            ("xlm-roberta", "classes"),
            ("gpt2", "causal_lm"),
            ("qwen2", "causal_lm"),
        ],
        MODELS,
    ),
)
def test_every_leaf_has_its_name_and_a_folder_comes_back_bit_for_bit(kind, head):
    module, params = make(kind, head)
    files = loading.save("one", module, params, {"model_type": kind})
    assert {file.name for file in files} == {"config.json", "model.safetensors"}
    held, metadata = safetensors.read("one/model.safetensors")
    assert set(held) == names_of(kind, head) and metadata == {"format": "pt"}
    config = json.loads(Path("one/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == (kind, [ARCHITECTURES[kind, head]])
    found = loading.load("one")
    unused = (
        (f"{kind}.embeddings.mask_token",) if kind == "dinov2_with_registers" else ()
    )  # which transformers wants to be there
    assert (found.new, found.dropped) == ((), unused) and same(found.params, params)
    assert found.module == module
    loading.save("two", found.module, found.params, found.config)
    for name in ("config.json", "model.safetensors"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


@pytest.mark.parametrize("case", MODELS, ids="-".join)
def test_the_table_is_one_to_one_and_has_no_entry_that_is_never_used(case):
    _, params = make(*case)
    kind, head = case
    places = {path: hf_names.place(kind, head, path, leaf.ndim) for path, leaf in flat(params).items()}
    assert len({place.name for place in places.values()}) == len(places)
    for path, place in places.items():
        leaf = flat(params)[path]
        assert place.outward(leaf).shape == place.shape(leaf.shape)
        assert place.inward(place.outward(leaf)).tobytes() == leaf.tobytes()
    used = {path.rpartition("/")[0] for path in places} | set(places)
    head_table = hf_names.HEADS.get((architecture(kind), head), {})
    assert set(head_table) <= used
    every = {name.replace("*", "0") for name in hf_names.BODIES[architecture(kind)]}
    assert {f"body/{name}" for name in every} - used <= {"body/pooler/dense"}


def test_names_of_old_files_are_known():
    """gamma and beta, buffers, a head of next sentences, and tied copies: bert-base-uncased has all of them."""
    module, params = make("bert", "masked_lm")
    loading.save("old", module, params)

    def change(held, config):
        for name in list(held):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            held[new] = held.pop(name)
        held["bert.embeddings.position_ids"] = np.arange(9)[None]
        held["cls.seq_relationship.weight"] = np.zeros((2, 8), np.float32)
        held["cls.predictions.decoder.weight"] = held["bert.embeddings.word_embeddings.weight"]
        config["num_labels"] = config.pop("dtype") and 2

    edited("old", change)
    found = loading.load("old")
    assert same(found.params, params)
    assert set(found.dropped) == {"cls.seq_relationship.weight", "cls.predictions.decoder.weight"}
    edited("old", lambda held, config: held.update({"cls.predictions.decoder.weight": np.zeros((11, 8), np.float32)}))
    assert "its last kernel is not the table of words" in refused("old")
    assert loading.load("old", head="none").module.head == "none"  # which does not need it


def test_the_head_of_a_folder_that_does_not_name_its_architecture():
    for (kind, head), named in ARCHITECTURES.items():
        prefix = OTHER_PREFIX.get(kind, BODY[architecture(kind)][0])
        names = {f"{prefix}.{n}" if head in ("pooled", "none") else n for n in names_of(kind, head)}
        for config in ({}, {"architectures": [named]}):
            if config or (kind, head) != ("gpt2", "causal_lm"):  # which has nothing of its own
                assert validation.head_of(kind, config, names, None, "x") == head

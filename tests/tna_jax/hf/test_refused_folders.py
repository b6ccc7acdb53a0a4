"""Hugging Face folders and options that are refused, each with what to do."""

from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.hf.small_models import KEY, edited, make, refused
from tna_jax.hf import loading


def test_all_that_does_not_fit_is_named_at_once():
    loading.save("one", *make("bert", "classes"))
    name = "bert.encoder.layer.0.attention.self.{}.weight"

    def change(held, config):
        del held[name.format("query")], held["classifier.bias"]
        held[name.format("key")] = np.zeros((8, 7), np.float32)
        held[name.format("value")] = np.zeros((8, 8), np.int32)
        held["bert.extra"] = held["decoder.weight"] = np.zeros(1, np.float32)

    edited("one", change)
    message = refused("one")
    for part in (
        f"missing: {name.format('query')}, classifier.bias;", "too many: bert.extra, decoder.weight;",
        f"{name.format('key')} ([8, 7] instead of [8, 8])", f"not floating-point: {name.format('value')} (I32)",
    ):  # fmt: skip
        assert part in message


@pytest.mark.parametrize(
    ("case", "change", "options", "message"),
    [
        ("bert", {"model_type": "t5"}, {}, "one/config.json: model_type 't5' is not supported; these are: vit, "),
        ("bert", {"is_decoder": True, "position_embedding_type": "relative_key"}, {},
         "not known here: is_decoder is True, position_embedding_type is 'relative_key'"),
        ("vit", {"pooler_output_size": 3}, {}, "pooler_output_size is 3, hidden_size 8"),
        ("bert", {"hidden_size": "8"}, {}, "one/config.json: width must be an integer"),
        ("bert", {"num_attention_heads": 3}, {}, "3 heads do not divide the width 8"),
        ("bert", {"num_hidden_layers": 10**9}, {}, "1000000000 num_hidden_layers, the files 25 tensors"),
        ("bert", {"num_hidden_layers": None}, {}, "depth must be an integer"),
        ("bert", {"layer_norm_eps": "small"}, {}, "eps must be"),
        ("bert", {"hidden_dropout_prob": 0.5}, {"dropout": 2.0}, "dropout must lie in"),
        ("bert", {"hidden_act": "mish"}, {}, "unknown act 'mish'"),
        ("bert", {"architectures": ["BertForTokenClassification"]}, {}, "whose head is not known here: choose a head"),
        ("bert", {"architectures": "x"}, {}, "architectures must be a list"),
        ("vit", {"num_channels": "3"}, {}, "num_channels must be"),
        ("bert", {}, {"head": "class"}, "unknown head 'class': did you mean 'classes'"),
        ("vit", {}, {"head": "masked_lm"}, "unknown head 'masked_lm'"),
        ("bert", {}, {"head": "masked_lm"}, "missing: cls.predictions.bias, cls.predictions.transform.dense"),
        ("bert", {}, {"head": "new", "num_classes": 3}, "head='new' needs num_classes and key"),
        ("bert", {}, {"num_classes": 3, "key": KEY}, "only that head does"),
        ("bert", {}, {"width": 3}, "unknown options width; known: dtype, dropout"),
        ("bert", {}, {"image_size": 3}, "image_size is for vit, deit, dinov2, dinov2_with_registers only"),
        ("vit", {}, {"image_size": 3}, "patches of 4x4 do not tile images of 3x3"),
        ("dinov2", {"use_swiglu_ffn": True}, {}, "is of a model that is not known here: use_swiglu_ffn is True"),
        ("dinov2", {"mlp_ratio": "4"}, {}, "hidden_size and mlp_ratio must be numbers, got 8 and '4'"),
        ("dinov2", {"mlp_ratio": float("inf")}, {}, "hidden_size and mlp_ratio must be numbers"),
        ("dinov2", {"layerscale_value": "1"}, {}, "layer_scale must be a finite number, got '1'"),
        ("dinov2_with_registers", {"num_register_tokens": 0}, {}, "without registers, model_type is dinov2"),
    ],
)  # fmt: skip
def test_folders_and_options_that_cannot_be(case, change, options, message):
    loading.save("one", *make(case, "classes"))
    edited("one", lambda held, config: config.update(change))
    assert message in refused("one", **options)


def test_a_folder_that_is_not_there_says_how_to_get_one():
    assert "there is no model folder gone" in refused("gone") and "hf download REPO --local-dir gone" in refused("gone")
    Path("empty").mkdir()
    Path("empty/config.json").write_text('{"model_type": "vit"}')
    assert "has neither model.safetensors.index.json nor model.safetensors" in refused("empty")
    Path("empty/config.json").write_text("[")
    assert "cannot read empty/config.json" in refused("empty")

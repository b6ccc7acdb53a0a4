"""Against the transformers library's PyTorch models, on checkpoints of random configurations made here: equal logits."""

import os

import jax
import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch", reason="needs the extra parity: torch and transformers")
transformers = pytest.importorskip("transformers", reason="needs the extra parity: torch and transformers")

from train import huggingface, tensors  # noqa: E402

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VIT = SMALL | {"image_size": 16, "patch_size": 4, "num_labels": 5}
TEXT = SMALL | {"vocab_size": 60, "max_position_embeddings": 24, "num_labels": 3}
CASES = {
    "vit": ("ViTForImageClassification", VIT),
    "vit, other sizes": ("ViTForImageClassification", VIT | {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 3,
                         "image_size": [8, 12], "num_channels": 1, "qkv_bias": False, "layer_norm_eps": 1e-6}),
    "vit, relu": ("ViTForImageClassification", VIT | {"hidden_act": "relu", "patch_size": 8, "num_labels": 2}),
    "vit, bare": ("ViTModel", VIT),
    "bert": ("BertForSequenceClassification", TEXT),
    "bert, other sizes": ("BertForSequenceClassification", TEXT | {"hidden_size": 24, "num_attention_heads": 2,
                          "num_hidden_layers": 1, "type_vocab_size": 3, "num_labels": 1, "pad_token_id": 7}),
    "bert, tanh gelu": ("BertForSequenceClassification", TEXT | {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
    "bert, masked": ("BertForMaskedLM", TEXT),
    "bert, masked, relu": ("BertForMaskedLM", TEXT | {"hidden_act": "relu"}),
    "bert, bare": ("BertModel", TEXT),
    "roberta": ("RobertaForSequenceClassification", TEXT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "roberta, other sizes": ("RobertaForSequenceClassification", TEXT | {"hidden_size": 24, "num_attention_heads": 6,
                             "num_hidden_layers": 3, "pad_token_id": 4, "num_labels": 7}),
    "roberta, masked": ("RobertaForMaskedLM", TEXT | {"pad_token_id": 1}),
    "roberta, masked, relu": ("RobertaForMaskedLM", TEXT | {"hidden_act": "relu"}),
    "roberta, bare": ("RobertaModel", TEXT),
}  # fmt: skip


def torch_model(name, config):
    """With values for every parameter; none is 0 or 1 throughout, where a wrong place would not show."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape))
    return model


def batch(config):
    """Inputs for both: images, or ids with padding on the right, on the left and in the middle, and token types."""
    draws = np.random.default_rng(1)
    if "image_size" in config:
        size = config["image_size"]
        shape = (3, *(size if isinstance(size, list) else (size, size)), config.get("num_channels", 3))
        images = draws.normal(size=shape).astype(np.float32)
        return {"x": images}, {"pixel_values": torch.from_numpy(images).permute(0, 3, 1, 2)}
    pad = config.get("pad_token_id", 0)
    ids = draws.integers(8, config["vocab_size"], (4, 9)).astype(np.int32)
    ids[1, 5:] = ids[2, :3] = ids[3, 4:6] = pad
    mask = ids != pad
    types = draws.integers(0, config.get("type_vocab_size", 2), ids.shape).astype(np.int32)
    theirs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {"x": ids, "types": types}, {name: torch.from_numpy(a.astype(np.int64)) for name, a in theirs.items()}


def outputs(model, inputs):
    with torch.no_grad():
        found = model(**inputs)
    return (found.logits if "logits" in found else found.pooler_output).numpy()


def ours(found, inputs):
    return np.asarray(jax.jit(found.module.apply)({"params": found.params}, **inputs))


def close(found, expected, kept=slice(None)):
    assert np.abs(expected).max() > 0.1 and expected.std() > 0.01
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers_and_a_saved_folder_gives_them_back(case, tmp_path):
    name, config = CASES[case]
    if name.startswith("Roberta") and "pad_token_id" not in config:
        config = config | {"pad_token_id": 1}
    model = torch_model(name, config)
    model.save_pretrained("theirs")
    inputs, theirs = batch(config)
    expected = outputs(model, theirs)
    found = huggingface.load("theirs")
    kept = inputs["x"] != config.get("pad_token_id", 0) if "masked" in case else slice(None)
    close(ours(found, inputs), expected, kept)
    assert found.new == found.dropped == ()

    huggingface.save("ours", found.module, found.params, found.config)
    one, two = tensors.read("theirs/model.safetensors"), tensors.read("ours/model.safetensors")
    assert one[1] == two[1] and {n: (a.dtype, a.shape, a.tobytes()) for n, a in one[0].items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in two[0].items()
    }
    again, about = getattr(transformers, name).from_pretrained("ours", output_loading_info=True)
    assert not any(about.values())
    np.testing.assert_array_equal(outputs(again.eval(), theirs), expected)

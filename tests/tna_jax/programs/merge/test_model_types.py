"""Forty kinds of models of the transformers library, made small and at random: `tna merge` averages them, and transformers reads the merge.

Weights of the merge are the mean, tied and integer ones too, nothing is missing or left over when it is loaded, and what it
computes is finite and what a model computes into which the mean was put by hand.
"""

import os
import warnings

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
torch = pytest.importorskip("torch", reason="needs the extra parity: torch and transformers")
transformers = pytest.importorskip("transformers", reason="needs the extra parity: torch and transformers")

from tests.parameters import slow_but  # noqa: E402
from tna_jax.programs.cli.main import main  # noqa: E402

TEXT = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
DECODER = {**TEXT, "num_key_value_heads": 2}
IMAGE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "image_size": 32,
         "patch_size": 8, "num_labels": 3}  # fmt: skip
STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "num_labels": 3}
BART = {"vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 40,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip
N_EMBD = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "n_inner": 48, "bos_token_id": 1,
          "eos_token_id": 2}  # fmt: skip
AUDIO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "conv_dim": (16, 16),
         "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 4, "vocab_size": 30, "pad_token_id": 0}  # fmt: skip
MASKED, CAUSAL, SEQUENCES = "MaskedLM", "CausalLM", "Seq2SeqLM"
CLASSES, PICTURES, SOUNDS = "SequenceClassification", "ImageClassification", "CTC"
TYPES = {
    "bert": (MASKED, TEXT),
    "roberta": (CLASSES, TEXT),
    "xlm-roberta": (MASKED, TEXT),
    "camembert": (CLASSES, TEXT),
    "distilbert": (MASKED, {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}),
    "albert": (MASKED, TEXT | {"embedding_size": 16}),
    "electra": (CLASSES, TEXT | {"embedding_size": 16}),
    "deberta-v2": (MASKED, TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "mpnet": (MASKED, TEXT),
    "ernie": (CLASSES, TEXT),
    "roformer": (MASKED, TEXT | {"embedding_size": 32}),
    "rembert": (CLASSES, TEXT | {"input_embedding_size": 16, "output_embedding_size": 16}),
    "megatron-bert": (MASKED, TEXT),
    "fnet": (MASKED, TEXT),
    "modernbert": (MASKED, TEXT | {"sep_token_id": 2, "cls_token_id": 1}),
    "gpt2": (CAUSAL, N_EMBD),
    "gptj": (CAUSAL, N_EMBD | {"rotary_dim": 4}),
    "codegen": (CAUSAL, N_EMBD | {"rotary_dim": 4}),
    "gpt_neo": (CAUSAL, {"vocab_size": 60, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 40,
                         "attention_types": [[["global", "local"], 1]], "bos_token_id": 1, "eos_token_id": 2}),
    "gpt_neox": (CAUSAL, TEXT),
    "opt": (CAUSAL, TEXT | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": (CAUSAL, {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0, "bos_token_id": 1,
                       "eos_token_id": 2}),
    "llama": (CAUSAL, DECODER),
    "mistral": (CAUSAL, DECODER),
    "qwen2": (CAUSAL, DECODER | {"tie_word_embeddings": True}),
    "qwen3": (CAUSAL, DECODER | {"head_dim": 8}),
    "gemma": (CAUSAL, DECODER | {"head_dim": 8}),
    "phi": (CAUSAL, TEXT),
    "phi3": (CAUSAL, DECODER),
    "olmo": (CAUSAL, DECODER),
    "stablelm": (CAUSAL, DECODER),
    "falcon": (CAUSAL, TEXT),
    "starcoder2": (CAUSAL, DECODER),
    "mixtral": (CAUSAL, DECODER | {"num_local_experts": 2}),
    "t5": (SEQUENCES, {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
                       "decoder_start_token_id": 0}),
    "bart": (SEQUENCES, BART),
    "pegasus": (SEQUENCES, BART),
    "vit": (PICTURES, IMAGE),
    "deit": (PICTURES, IMAGE | {"architectures": ["DeiTForImageClassification"]}),
    "beit": (PICTURES, IMAGE | {"use_relative_position_bias": True}),
    "dinov2": (PICTURES, IMAGE | {"mlp_ratio": 2}),
    "resnet": (PICTURES, STAGES | {"layer_type": "basic"}),
    "regnet": (PICTURES, STAGES | {"groups_width": 8}),
    "convnext": (PICTURES, {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "num_labels": 3}),
    "swin": (PICTURES, {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4,
                        "num_labels": 3}),
    "wav2vec2": (SOUNDS, AUDIO),
    "hubert": (SOUNDS, AUDIO),
}  # fmt: skip
"""By model type: the head, and a small configuration."""


def inputs_of(head: str) -> dict:
    """A batch that a model takes."""
    generator = torch.Generator().manual_seed(0)
    if head == PICTURES:
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    if head == SOUNDS:
        return {"input_values": torch.randn(2, 800, generator=generator)}
    ids = torch.randint(5, 60, (2, 12), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | (
        {"decoder_input_ids": ids[:, :6]} if head == SEQUENCES else {}
    )


def outputs_of(model, head: str) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**inputs_of(head)).logits.numpy()


def made(kind: str, seed: int):
    """A model of a small configuration, its weights drawn at random, none of them left at its initial value (a norm's 1)."""
    head, fields = TYPES[kind]
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **fields)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn(value.shape))
    return model


@pytest.mark.filterwarnings("ignore")  # of transformers and torch
@pytest.mark.parametrize("kind", slow_but(("bert",), TYPES))
def test_transformers_reads_the_mean_of_two_models(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = TYPES[kind][0]
    models = [made(kind, seed) for seed in range(2)]
    for name, model in zip("ab", models, strict=True):
        model.save_pretrained(name)
    assert main(["merge", "a", "b", "-o", "out"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged, loading = type(models[0]).from_pretrained("out", output_loading_info=True)
    assert not [key for part in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in loading[part]]
    states = [model.state_dict() for model in models]
    for name, value in merged.state_dict().items():
        first, second = (state[name] for state in states)
        mean = (first.double() + second.double()) / 2 if value.is_floating_point() else first.double()
        np.testing.assert_allclose(value.double().numpy(), mean.numpy(), rtol=1e-6, atol=1e-7, err_msg=name)
    by_hand = models[0]
    by_hand.load_state_dict({
        name: (first + states[1][name]) / 2 if first.is_floating_point() else first for name, first in states[0].items()
    })  # fmt: skip
    outputs = outputs_of(merged, head)
    assert np.isfinite(outputs).all() and np.ptp(outputs) > 0
    np.testing.assert_allclose(outputs, outputs_of(by_hand, head), rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs, outputs_of(made(kind, 0), head), rtol=1e-3, atol=1e-4)  # nor is it the first model

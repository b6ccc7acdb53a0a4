"""The names of parameters in files as transformers writes them, by hand."""

from tna_jax.hf.model_types import architecture


def both(name):
    return [f"{name}.weight", f"{name}.bias"]


BERT_LAYER = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
              "intermediate.dense", "output.dense", "attention.output.LayerNorm", "output.LayerNorm"]  # fmt: skip
VIT_LAYER = ["attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense",
             "intermediate.dense", "output.dense", "layernorm_before", "layernorm_after"]  # fmt: skip
DINOV2_LAYER = ["attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense",
                "mlp.fc1", "mlp.fc2", "norm1", "norm2"]  # fmt: skip
SCALES = ["encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.layer_scale2.lambda1"]
REGISTERS = ["embeddings.register_tokens", "embeddings.mask_token"]
DISTIL_LAYER = ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2",
                "sa_layer_norm", "output_layer_norm"]  # fmt: skip
GPT2_LAYER = ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"]
LLAMA_LAYER = ["input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
               "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]  # fmt: skip
EMBEDDINGS = [
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    *both("embeddings.LayerNorm"),
]
TOKEN_TYPES = ["embeddings.token_type_embeddings.weight"]
PATCHES = ["embeddings.cls_token", "embeddings.position_embeddings", *both("layernorm"),
           *both("embeddings.patch_embeddings.projection")]  # fmt: skip
BODY = {
    "vit": ("vit", "encoder.layer.0.", VIT_LAYER, PATCHES),
    "deit": ("deit", "encoder.layer.0.", VIT_LAYER, [*PATCHES, "embeddings.distillation_token"]),
    "dinov2": ("dinov2", "encoder.layer.0.", DINOV2_LAYER, PATCHES + SCALES),
    "dinov2_with_registers": ("dinov2_with_registers", "encoder.layer.0.", DINOV2_LAYER, PATCHES + SCALES + REGISTERS),
    "bert": ("bert", "encoder.layer.0.", BERT_LAYER, EMBEDDINGS + TOKEN_TYPES),
    "roberta": ("roberta", "encoder.layer.0.", BERT_LAYER, EMBEDDINGS + TOKEN_TYPES),
    "distilbert": ("distilbert", "transformer.layer.0.", DISTIL_LAYER, EMBEDDINGS),
    "electra": ("electra", "encoder.layer.0.", BERT_LAYER, EMBEDDINGS + TOKEN_TYPES + both("embeddings_project")),
    "gpt2": ("transformer", "h.0.", GPT2_LAYER, ["wte.weight", "wpe.weight", *both("ln_f")]),
    "llama": ("model", "layers.0.", LLAMA_LAYER, ["embed_tokens.weight", "norm.weight"]),
}
OTHER_PREFIX = {"ernie": "ernie", "data2vec-text": "data2vec_text"}
ROBERTA_CLASSES = both("classifier.dense") + both("classifier.out_proj")
ENDS = {
    ("vit", "classes"): both("classifier"),
    ("deit", "classes"): both("classifier"),
    ("dinov2", "classes"): both("classifier"),
    ("dinov2_with_registers", "classes"): both("classifier"),
    ("bert", "classes"): both("classifier"),
    ("bert", "masked_lm"): ["cls.predictions.bias", *both("cls.predictions.transform.dense"),
                            *both("cls.predictions.transform.LayerNorm")],
    ("roberta", "classes"): ROBERTA_CLASSES,
    ("roberta", "masked_lm"): ["lm_head.bias", *both("lm_head.dense"), *both("lm_head.layer_norm")],
    ("distilbert", "classes"): both("pre_classifier") + both("classifier"),
    ("distilbert", "masked_lm"): [*both("vocab_transform"), *both("vocab_layer_norm"), "vocab_projector.bias"],
    ("electra", "classes"): ROBERTA_CLASSES,
    ("gpt2", "classes"): ["score.weight"], ("gpt2", "causal_lm"): [],
    ("llama", "classes"): ["score.weight"], ("llama", "causal_lm"): ["lm_head.weight"],
}  # fmt: skip


def names_of(kind, head):
    """The names as transformers writes them, by hand."""
    of = architecture(kind)
    prefix, layer, parts, rest = BODY[of]
    body = [name for part in parts for name in both(layer + part) if of != "llama" or name.endswith("weight")]
    body += [f"{layer}self_attn.{part}_proj.bias" for part in "qkv" if kind == "qwen2"] + rest
    if head == "pooled" or (of, head) == ("bert", "classes"):
        body += both("pooler.dense")
    if head in ("pooled", "none"):
        return set(body)
    return {f"{OTHER_PREFIX.get(kind, prefix)}.{name}" for name in body} | set(ENDS[of, head])

"""How Hugging Face's checkpoints name their tensors, and ours: one table, read both ways.

A tensor of a checkpoint is the body's, which has a prefix (`bert.embeddings...`; files of a bare encoder leave it out), or a
head's. Dense kernels are transposed there (but those of a GPT-2's blocks), convolutions are (out, in, height, width).
"""

import re
from typing import NamedTuple

import numpy as np

from tna_jax.hf.model_types import TYPES, architecture


class Place(NamedTuple):
    """Where a leaf of our parameters stands in a checkpoint."""

    name: str
    """With the prefix of the body, `bert.encoder.layer.0.attention.self.query.weight`."""
    axes: tuple[int, ...] | None
    """Order of our leaf's axes there; None: as they are."""

    def outward(self, array: np.ndarray) -> np.ndarray:
        """Transposes our leaf to the checkpoint's layout."""
        return array if self.axes is None else array.transpose(self.axes)

    def inward(self, array: np.ndarray) -> np.ndarray:
        """Transposes the checkpoint's tensor to our layout."""
        return array if self.axes is None else array.transpose(np.argsort(self.axes))

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape there of a leaf of this shape."""
        return ours if self.axes is None else tuple(ours[i] for i in self.axes)


BERT_BODY = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "pooler/dense": "pooler.dense",
    "layer_*/query": "encoder.layer.*.attention.self.query",
    "layer_*/key": "encoder.layer.*.attention.self.key",
    "layer_*/value": "encoder.layer.*.attention.self.value",
    "layer_*/out": "encoder.layer.*.attention.output.dense",
    "layer_*/norm1": "encoder.layer.*.attention.output.LayerNorm",
    "layer_*/up": "encoder.layer.*.intermediate.dense",
    "layer_*/down": "encoder.layer.*.output.dense",
    "layer_*/norm2": "encoder.layer.*.output.LayerNorm",
}
VIT_BODY = {
    "cls_token": "embeddings.cls_token",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "pooler/dense": "pooler.dense",
    "layer_*/query": "encoder.layer.*.attention.attention.query",
    "layer_*/key": "encoder.layer.*.attention.attention.key",
    "layer_*/value": "encoder.layer.*.attention.attention.value",
    "layer_*/out": "encoder.layer.*.attention.output.dense",
    "layer_*/norm1": "encoder.layer.*.layernorm_before",
    "layer_*/up": "encoder.layer.*.intermediate.dense",
    "layer_*/down": "encoder.layer.*.output.dense",
    "layer_*/norm2": "encoder.layer.*.layernorm_after",
}
DINOV2_BODY = {
    "cls_token": "embeddings.cls_token",
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "layer_*/query": "encoder.layer.*.attention.attention.query",
    "layer_*/key": "encoder.layer.*.attention.attention.key",
    "layer_*/value": "encoder.layer.*.attention.attention.value",
    "layer_*/out": "encoder.layer.*.attention.output.dense",
    "layer_*/norm1": "encoder.layer.*.norm1",
    "layer_*/layer_scale1": "encoder.layer.*.layer_scale1",
    "layer_*/up": "encoder.layer.*.mlp.fc1",
    "layer_*/down": "encoder.layer.*.mlp.fc2",
    "layer_*/norm2": "encoder.layer.*.norm2",
    "layer_*/layer_scale2": "encoder.layer.*.layer_scale2",
}
BODIES = {
    "vit": VIT_BODY,
    "deit": {**VIT_BODY, "distillation_token": "embeddings.distillation_token"},
    "dinov2": DINOV2_BODY,
    "dinov2_with_registers": {**DINOV2_BODY, "register_tokens": "embeddings.register_tokens"},
    "bert": BERT_BODY,
    "roberta": BERT_BODY,
    "distilbert": {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "norm": "embeddings.LayerNorm",
        "layer_*/query": "transformer.layer.*.attention.q_lin",
        "layer_*/key": "transformer.layer.*.attention.k_lin",
        "layer_*/value": "transformer.layer.*.attention.v_lin",
        "layer_*/out": "transformer.layer.*.attention.out_lin",
        "layer_*/norm1": "transformer.layer.*.sa_layer_norm",
        "layer_*/up": "transformer.layer.*.ffn.lin1",
        "layer_*/down": "transformer.layer.*.ffn.lin2",
        "layer_*/norm2": "transformer.layer.*.output_layer_norm",
    },
    "electra": {
        "project": "embeddings_project",
        **{o: theirs for o, theirs in BERT_BODY.items() if o != "pooler/dense"},
    },
    "gpt2": {
        "words": "wte",
        "positions": "wpe",
        "layer_*/norm1": "h.*.ln_1",
        "layer_*/qkv": "h.*.attn.c_attn",
        "layer_*/out": "h.*.attn.c_proj",
        "layer_*/norm2": "h.*.ln_2",
        "layer_*/up": "h.*.mlp.c_fc",
        "layer_*/down": "h.*.mlp.c_proj",
        "norm": "ln_f",
    },
    "llama": {
        "words": "embed_tokens",
        "layer_*/norm1": "layers.*.input_layernorm",
        "layer_*/query": "layers.*.self_attn.q_proj",
        "layer_*/key": "layers.*.self_attn.k_proj",
        "layer_*/value": "layers.*.self_attn.v_proj",
        "layer_*/out": "layers.*.self_attn.o_proj",
        "layer_*/norm2": "layers.*.post_attention_layernorm",
        "layer_*/gate": "layers.*.mlp.gate_proj",
        "layer_*/up": "layers.*.mlp.up_proj",
        "layer_*/down": "layers.*.mlp.down_proj",
        "norm": "norm",
    },
}
"""By architecture: our place under `body/` to theirs after the prefix; * is a layer's number."""

HEADS = {
    ("vit", "classes"): {"head": "classifier"},
    ("deit", "classes"): {"head": "classifier"},
    ("dinov2", "classes"): {"head": "classifier"},
    ("dinov2_with_registers", "classes"): {"head": "classifier"},
    ("bert", "classes"): {"head": "classifier"},
    ("bert", "masked_lm"): {
        "head/dense": "cls.predictions.transform.dense",
        "head/norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions",
    },
    ("roberta", "classes"): {"head/dense": "classifier.dense", "head/out": "classifier.out_proj"},
    ("roberta", "masked_lm"): {"head/dense": "lm_head.dense", "head/norm": "lm_head.layer_norm", "head": "lm_head"},
    ("distilbert", "classes"): {"head/dense": "pre_classifier", "head/out": "classifier"},
    ("distilbert", "masked_lm"): {
        "head/dense": "vocab_transform",
        "head/norm": "vocab_layer_norm",
        "head": "vocab_projector",
    },
    ("electra", "classes"): {"head/dense": "classifier.dense", "head/out": "classifier.out_proj"},
    ("gpt2", "classes"): {"head": "score"},
    ("llama", "classes"): {"head": "score"},
    ("llama", "causal_lm"): {"head": "lm_head"},
}
"""By architecture and our kind of head: our place to theirs. Heads `pooled`, `none` and a GPT-2's `causal_lm` have nothing of their own."""

TIED = {
    "bert": {"cls.predictions.decoder.weight": "words", "cls.predictions.decoder.bias": "cls.predictions.bias"},
    "roberta": {"lm_head.decoder.weight": "words", "lm_head.decoder.bias": "lm_head.bias"},
    "distilbert": {"vocab_projector.weight": "words"},
    "gpt2": {"lm_head.weight": "words"},
    "llama": {"lm_head.weight": "words"},
}
"""Copies that some files hold beside the table of words (`words`) and a head's bias, by architecture: of what."""

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias", "gamma": "lambda1"}
IN_OUT = ("gpt2",)
"""Architectures whose bodies hold kernels as (in, out), as we do."""


def place(kind: str, head: str, path: str, rank: int) -> Place:
    """Returns where our leaf `path` (`body/layer_0/query/kernel`), of `rank` axes, stands in a checkpoint of model type `kind`.

    Raises:
      KeyError: no such leaf in this type of model with this head.
    """
    of = architecture(kind)
    module, _, leaf = path.rpartition("/")
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}[rank] if leaf == "kernel" else None
    if module.startswith("body/") or module == "body":
        number = re.search(r"layer_(\d+)", module)
        inner = re.sub(r"layer_\d+", "layer_*", module).removeprefix("body").lstrip("/")
        if not inner:  # a leaf without a layer: cls_token, positions
            return Place(f"{TYPES[kind].prefix}.{BODIES[of][leaf]}", axes)
        name = BODIES[of][inner].replace("*", number[1] if number else "*")
        axes = None if of in IN_OUT else axes
        return Place(f"{TYPES[kind].prefix}.{name}.{LEAVES[leaf]}", axes)
    return Place(f"{HEADS[of, head][module]}.{LEAVES[leaf]}", axes)


def words(kind: str) -> str:
    """Returns what a checkpoint calls the table of words."""
    return f"{TYPES[kind].prefix}.{BODIES[architecture(kind)]['words']}.weight"


def tied_copies(kind: str) -> dict[str, str]:
    """Returns the tensors that a checkpoint of this type may hold as copies of others: of which."""
    copies = TIED.get(architecture(kind), {})
    return {copy: words(kind) if of == "words" else of for copy, of in copies.items()}


def in_body(kind: str, name: str) -> bool:
    """Whether a tensor, by its `canonical` name, is the body's and not a head's."""
    return name.startswith(f"{TYPES[kind].prefix}.")


def canonical(kind: str, names: list[str]) -> dict[str, str]:
    """Maps the names in a file to those that `place` uses.

    Files of bare encoders get the prefix (a LlamaForQuestionAnswering has another one, `transformer`); norms of the first BERT
    checkpoints have gamma and beta for weight and bias.
    """
    body = {name.split(".")[0] for name in BODIES[architecture(kind)].values()}
    bare = not any(in_body(kind, name) for name in names)
    renamed = {}
    for name in names:
        new = re.sub(r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight", name)
        new = re.sub(r"(LayerNorm|layer_norm)\.beta$", r"\1.bias", new)
        new = new.removeprefix("transformer.") if bare and architecture(kind) == "llama" else new
        renamed[name] = f"{TYPES[kind].prefix}.{new}" if bare and new.split(".")[0] in body else new
    return renamed

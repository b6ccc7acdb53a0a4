"""How Hugging Face's vit, bert and roberta checkpoints name their tensors, and ours: one table, read both ways.

A tensor of a checkpoint is the body's, which has the model's type as a prefix (`bert.embeddings...`; files of a bare encoder
leave it out), or a head's. Dense kernels are transposed there, convolutions are (out, in, height, width).
"""

import re
from typing import NamedTuple

import numpy as np


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
BODIES = {
    "vit": {
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
    },
    "bert": BERT_BODY,
    "roberta": BERT_BODY,
}
"""By model type: our place under `body/` to theirs after the prefix; * is a layer's number."""

HEADS = {
    ("vit", "classes"): {"head": "classifier"},
    ("bert", "classes"): {"head": "classifier"},
    ("bert", "masked_lm"): {
        "head/dense": "cls.predictions.transform.dense",
        "head/norm": "cls.predictions.transform.LayerNorm",
        "head": "cls.predictions",
    },
    ("roberta", "classes"): {"head/dense": "classifier.dense", "head/out": "classifier.out_proj"},
    ("roberta", "masked_lm"): {"head/dense": "lm_head.dense", "head/norm": "lm_head.layer_norm", "head": "lm_head"},
}
"""By model type and our kind of head: our place to theirs. Heads `pooled` and `none` have nothing of their own."""

TIED = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder"}
"""Copies that some files hold beside the words (weight) and the head's bias."""

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def place(kind: str, head: str, path: str, rank: int) -> Place:
    """Returns where our leaf `path` (`body/layer_0/query/kernel`), of `rank` axes, stands in a checkpoint.

    Raises:
      KeyError: no such leaf in this type of model with this head.
    """
    module, _, leaf = path.rpartition("/")
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}[rank] if leaf == "kernel" else None
    if module.startswith("body/") or module == "body":
        number = re.search(r"layer_(\d+)", module)
        inner = re.sub(r"layer_\d+", "layer_*", module).removeprefix("body").lstrip("/")
        if not inner:  # a leaf without a layer: cls_token, positions
            return Place(f"{kind}.{BODIES[kind][leaf]}", axes)
        name = BODIES[kind][inner].replace("*", number[1] if number else "*")
        return Place(f"{kind}.{name}.{LEAVES[leaf]}", axes)
    return Place(f"{HEADS[kind, head][module]}.{LEAVES[leaf]}", axes)


def canonical(kind: str, names: list[str]) -> dict[str, str]:
    """Maps the names in a file to those that `place` uses.

    Files of bare encoders get the prefix; norms of the first BERT checkpoints have gamma and beta for weight and bias.
    """
    heads = {name.split(".")[0] for (of, _), table in HEADS.items() if of == kind for name in table.values()}
    bare = not any(name.startswith(f"{kind}.") for name in names)
    renamed = {}
    for name in names:
        new = re.sub(r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight", name)
        new = re.sub(r"(LayerNorm|layer_norm)\.beta$", r"\1.bias", new)
        renamed[name] = f"{kind}.{new}" if bare and new.split(".")[0] not in heads else new
    return renamed

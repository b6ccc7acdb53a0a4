"""The options the programs share, one dataclass for each question a user asks. They import no JAX: what they build is in `training`."""

import dataclasses
from typing import Annotated, ClassVar, get_args

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import dataset_names, effects, ranges
from tna_jax.programs.cli.arguments import MACHINE, Hidden, Known
from tna_jax.programs.cli.choices import (
    DATASETS,
    TEXT_MODELS,
    WITH_MOMENTUM,
    AnchorValues,
    Augmentation,
    Convolution,
    ImageModel,
    MaskKind,
    Norm,
    Optimizer,
    Placement,
    Schedule,
    model_options,
)
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE, PATTERN, POSITIVE, SHARE, Rule
from tna_jax.programs.cli.recipes import Recipe
from tna_jax.programs.cli.run_options import MachineOptions, RunOptions, TrustOptions

AUTO = "auto"
DATASET = Rule(dataset_names.problem)


@dataclasses.dataclass(frozen=True)
class DataOptions(TrustOptions):
    """On which data?"""

    SECTION: ClassVar[str] = "data"

    dataset: Annotated[str, DATASET, Known(DATASETS)] = "digits"
    """Data set by name (cifar100_test: the test file alone); tfds:NAME for any set of TensorFlow Datasets; some classes of a set: cifar10:0-4, cifar10:cat,dog; several sets as one: cifar10:0-4+cifar100_test. Data of
    your own: FILE.npz, FILE.csv, FILE.parquet, ./FOLDER of images, ./FILE.py:NAME (a function), hf:NAME (Hugging Face), records:FOLDER (larger than memory)."""
    target: str | None = None
    """Column of your own table that is predicted."""
    image_size: Annotated[int | None, COUNT] = None
    """Side in pixels to which images of your own folder are cropped and scaled; default: as they are, if all have one size."""
    dataset_sha256: Annotated[str | None, Hidden()] = None
    """The hash of the file of a function of the user's own, as a run records it."""
    data_fingerprint: Annotated[str | None, Hidden()] = None
    """The hash of the content of the user's own data, as a run records it."""
    data_dir: str | None = None
    """Folder that holds the data sets; $TNA_DATA_DIR and the TFDS folder are searched after it."""
    download: bool = False
    """Let TensorFlow Datasets, or Hugging Face for hf:NAME, download the set if it is found nowhere."""
    train_examples: Annotated[int | None, COUNT] = None
    """Use this many training examples, chosen once for all seeds; default: all."""
    test_examples: Annotated[int | None, COUNT] = None
    """Use this many test examples; default: all."""

    @property
    def dataset_word(self) -> str:
        """The data set in a word, for names of folders."""
        return dataset_names.word(self.dataset)


def _image_model(flag: str, name: str) -> str:
    reads_text = name.startswith(TEXT_MODELS)
    return f"{flag} {name} reads text, and this program trains on images" if reads_text else ""


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """Which network?"""

    SECTION: ClassVar[str] = "network"

    model: Annotated[ImageModel, Rule(_image_model)] = "mlp"
    """Network."""
    depth: Annotated[int | None, COUNT] = None
    """Number of hidden layers (mlp; default: 4) or blocks (vit; default: 12)."""
    width: Annotated[int | None, COUNT] = None
    """Units of each hidden layer (mlp; default: 128) or of a token (vit; default: 192)."""
    heads: Annotated[int | None, COUNT] = None
    """Attention heads of a vit; default: one for every 64 units of the width."""
    patch: Annotated[int | None, COUNT] = None
    """Side of a vit's patches in pixels; default: 16."""
    norm: Norm | None = None
    """Normalization of a convolutional network or an mlp; default: the network's own."""
    groups: Annotated[int | None, COUNT] = None
    """Groups of group normalization; default: 8."""
    widen: Annotated[int | None, COUNT] = None
    """Multiplies all widths of a convolutional network; default: 1."""
    conv: Convolution | None = None
    """Compute convolutions with the backend's own kernels (native) or as matrix products of shifted slices (slices)."""

    def check_model(self) -> None:
        """Raises UsageError for options that the network does not have."""
        if self.model not in get_args(ImageModel):
            return
        names = [field.name for field in dataclasses.fields(ModelOptions) if field.name != "model"]
        has = model_options(self.model)
        odd = [f"--{name}" for name in names if getattr(self, name) is not None and name not in has]
        if odd:
            options = ", ".join(f"--{name}" for name in has)
            raise UsageError(f"--model {self.model} has no {' or '.join(odd)}; its options: {options}")

    def describe(self) -> str:
        """Returns the network in a few words."""
        parts: list[str] = [self.model]
        if self.model == "mlp":
            parts.append(f"{self.depth or 4}x{self.width or 128}")
        parts += [f"{self.norm} norm"] if self.norm else []
        parts += [f"x{self.widen}"] if self.widen and self.widen > 1 else []
        return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class AnchorOptions:
    """Which anchors?"""

    SECTION: ClassVar[str] = "anchors"

    recipe: Recipe | None = None
    """Anchors in a word instead of six options: heavy is --anchors per-unit --anchor-scale 1.5 --trainable-scale 0.1 --warmup-epochs 2 at mask ratio 0.4. Options set beside it win."""
    anchors: MaskKind = "bernoulli"
    """How anchors are drawn: each weight by itself (bernoulli), an exact number of weights (exact), whole units (neurons), an exact number of every unit's inputs, never biases or norms (per-unit)."""
    where: Annotated[str | None, PATTERN] = None
    """Draw anchors only in parameters whose path matches this regular expression; default: in all."""
    soft: Annotated[float | None, SHARE] = None
    """Soft anchors: multiply their updates by this number instead of 0; default: anchors are fixed."""
    anchor_values: AnchorValues = "initial"
    """Values of the anchors: the initial ones of the first network of a pair or ensemble, or drawn anew from N(0, 1)."""
    anchor_scale: Annotated[float, NOT_NEGATIVE] = 1.0
    """Multiplies the values of the anchors."""
    trainable_scale: Annotated[float, NOT_NEGATIVE] = 1.0
    """Multiplies the initial values of the trainable weights of networks that have anchors (mask ratio above 0)."""

    def check_anchors(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.soft is not None and self.trainable_scale != 1:
            raise UsageError("--trainable-scale and --soft do not go together: under soft anchors all weights train")

    def idle(self) -> str:
        """Returns the options that do nothing at mask ratio 0, in a sentence; empty where none is given."""
        flags = effects.given(self, [field.name for field in dataclasses.fields(AnchorOptions)])
        return f"{effects.nothing(flags)} at mask ratio 0: there are no anchors" if flags else ""


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How is it trained?"""

    SECTION: ClassVar[str] = "training"

    epochs: Annotated[int, COUNT] = 50
    """Passes over the training data."""
    batch_size: Annotated[int, COUNT] = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    optimizer: Optimizer = "sgd"
    """Optimizer, by its name in optax."""
    learning_rate: Annotated[float, POSITIVE] = 0.1
    """Step size, at its peak if there is a schedule."""
    momentum: float | None = None
    """Momentum, for optimizers that have one; default: 0.9 for sgd, else the optimizer's own."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """Weight decay: the optimizer's own (decoupled) where it has one, else added to the gradient."""
    schedule: Schedule = "constant"
    """Learning-rate schedule over the whole run; cosine and linear fall to 0."""
    warmup_epochs: Annotated[float, NOT_NEGATIVE] = 0.0
    """Epochs over which the learning rate first rises from 0."""
    placement: Annotated[Placement, MACHINE] = "auto"
    """How models share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""
    augment: Augmentation = "none"
    """Augmentation of training images, on the device: random crops after padding by 4 pixels, random mirror images, or both."""
    calibration_examples: Annotated[int, COUNT] = 2000
    """Training examples on which BatchNorm's statistics are estimated again at each point of a path."""
    memory_limit: Annotated[float | None, BOUND, MACHINE] = None
    """Memory the models may take, in GB, on each device (CPU: in all); default: what is free. What does not fit trains in waves."""

    def check_training(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.epochs >= 1 and self.warmup_epochs > self.epochs:
            raise UsageError(f"--warmup-epochs {self.warmup_epochs:g} is more than --epochs {self.epochs}")
        if self.momentum is not None and self.optimizer not in WITH_MOMENTUM:
            raise UsageError(
                f"--momentum: {self.optimizer} has none; these optimizers have: {', '.join(WITH_MOMENTUM)}"
            )


@dataclasses.dataclass(frozen=True)
class Settings(RunOptions, MachineOptions, TrainingOptions, AnchorOptions, ModelOptions, DataOptions):
    """The options of every program that trains an ensemble of networks for images."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            lambda: ranges.check(self),
            self.check_training,
            self.check_machine,
            self.check_model,
            self.check_anchors,
            self.check_run,
            lambda: effects.check(self),
        )

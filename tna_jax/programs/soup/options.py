"""The options of `tna soup`."""

import dataclasses
from typing import Annotated, ClassVar, get_args

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import checkpoint_names, effects
from tna_jax.programs.cli.arguments import DATA, Hidden, Known, Only, Section
from tna_jax.programs.cli.checkpoint_names import CHECKPOINT
from tna_jax.programs.cli.choices import DATASETS, Corruption, TextTask, Ties
from tna_jax.programs.cli.dataset_names import problem
from tna_jax.programs.cli.finetuning_options import FreezeOptions, TuningOptions
from tna_jax.programs.cli.ranges import (
    COUNT,
    DIFFERENT,
    NOT_NEGATIVE,
    ONCE,
    POSITIVE,
    PROBABILITY,
    RATIOS,
    SHARE,
    TWO,
    Range,
    Rule,
)
from tna_jax.programs.cli.run_options import TrustOptions

SEVERITY = Range("lie in 1 to 5", lambda value: 1 <= value <= 5, "each in 1 to 5")
RECIPES = Section("recipes")
OF_TRAINING = (
    "ratios", "seeds", "recipes", "learning_rates", "weight_decays", "label_smoothings", "augmentations", "epochs", "warmup", "clip",
    "accumulate", "remat", "freeze", "checkpoint_every",
)  # fmt: skip
VALUES = ("learning_rates", "weight_decays", "label_smoothings", "augmentations")
"""The lists of values of recipes, in the order in which `tna_jax.finetuning.grid` takes from them."""
OF_IMAGES, OF_TEXTS = ("image_size", "augmentations", "corruptions", "severities"), ("length",)
DATASET = Rule(lambda flag, name: "" if name in get_args(TextTask) else problem(flag, name))
ONE_OR_MORE = Rule(lambda flag, values: "" if values else f"{flag} needs a value")


@dataclasses.dataclass(frozen=True)
class SoupOptions(TuningOptions, FreezeOptions, TrustOptions):
    """Fine-tune many recipes from one checkpoint, with and without anchors, and average them into soups."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "checkpoint", "models", "dataset", "data_dir", "ratios", "freeze", "seeds", "recipes", "learning_rates", "epochs", "batch_size",
        "out", "memory_limit",
    )  # fmt: skip

    checkpoint: Annotated[str | None, CHECKPOINT] = None
    """Hugging Face folder (config.json, model.safetensors) to start from: of tna pretrain, or a downloaded ViT, DINOv2, BERT or RoBERTa;
    or one that tna fetch has a name for (tna fetch --list), hf:OWNER/REPOSITORY too."""
    models: tuple[str, ...] = ()
    """Instead of training: Hugging Face folders of two or more models fine-tuned from one checkpoint for this data."""
    dataset: Annotated[str, DATASET, Known((*DATASETS, *get_args(TextTask)))] = "cifar10"
    """Images, as in tna train, or a text task, or data of your own: ./FOLDER of images, FILE.npz, ./FILE.py:NAME; FILE.tsv or FILE.csv
    with the columns text (text2) and label, ./FOLDER of them; hf:NAME."""
    target: Annotated[str | None, DATA] = None
    """Column of labels in your own data; default: label."""
    image_size: Annotated[int | None, COUNT, DATA] = None
    """Side in pixels of the images as the network takes them, a multiple of its patches' side: its position embeddings are interpolated
    to it (98 is quick for a DINOv2). Pictures of your own folder are cropped and scaled to it. Default: the checkpoint's own."""
    dataset_sha256: Annotated[str | None, Hidden()] = None
    """The hash of the file of a function of the user's own, as a run records it."""
    data_fingerprint: Annotated[str | None, Hidden()] = None
    """The hash of the content of the user's own data, as a run records it."""
    ratios: Annotated[tuple[float, ...], RATIOS] = (0.0, 0.4)
    """Mask ratios of the body: shares of ANCHORED weights; 0 is the plain soup."""
    seeds: Annotated[int, COUNT] = 1
    """Populations, each with its own head, anchors and data orders."""
    recipes: Annotated[int, TWO, RECIPES] = 4
    """Models of a population; recipe i takes its values in turn from the four lists of values, the first list the fastest."""
    learning_rates: Annotated[tuple[float, ...], ONE_OR_MORE, POSITIVE, RECIPES] = (3e-4, 6e-4)
    """Peak learning rates of AdamW."""
    weight_decays: Annotated[tuple[float, ...], ONE_OR_MORE, NOT_NEGATIVE, RECIPES] = (0.01, 0.1)
    """Weight decays, decoupled, of matrices."""
    label_smoothings: Annotated[tuple[float, ...], ONE_OR_MORE, SHARE, RECIPES] = (0.0, 0.1)
    """Shares of a label's weight that are spread over all classes."""
    augmentations: Annotated[tuple[float, ...], ONE_OR_MORE, PROBABILITY, RECIPES] = (0.5, 0.25)
    """Strengths of augmentation: moves, mirror images, brightness and contrast (images)."""
    length: Annotated[int, COUNT] = 32
    """Tokens of a text; longer ones are cut."""
    train_examples: Annotated[int | None, COUNT] = None
    """Use this many training examples; default: all that are not held out."""
    held_out_examples: Annotated[int, COUNT] = 1000
    """Examples by which the best model and the greedy soup are chosen: of the training set, or the validation texts."""
    test_examples: Annotated[int | None, COUNT] = None
    """Use this many test examples; default: all."""
    corruptions: Annotated[tuple[Corruption, ...], ONCE] = ("noise", "blur", "contrast")
    """Corruptions that make the shifted test sets (images)."""
    severities: Annotated[tuple[int, ...], SEVERITY, DIFFERENT, Only("corruptions")] = (3,)
    """Strengths of the corruptions."""
    ties: Ties = "keep"
    """Greedy soup: keep or drop a model that leaves the held-out accuracy as it is."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(super().check, self.check_source)

    def check_source(self) -> None:
        """Raises UsageError unless there is one source of models."""
        if self.checkpoint is None and not self.models:
            raise UsageError("give --checkpoint FOLDER to fine-tune from, or --models FOLDER FOLDER ... to average")
        if self.checkpoint is not None and self.models:
            raise UsageError(
                "--checkpoint and --models exclude each other: models that are fine-tuned already are averaged as they are"
            )
        if self.models and len(self.models) < 2:
            raise UsageError("--models: a soup needs two models or more")
        if twice := checkpoint_names.twice(self.models):
            raise UsageError(f"--models: named more than once: {', '.join(twice)}; it would count twice")
        checkpoint_names.require_outside(self, (self.checkpoint, *self.models))
        if self.models:
            effects.refuse(self, OF_TRAINING, "for --models, which are averaged as they are")
        else:
            self.check_recipes()

    def check_recipes(self) -> None:
        """Raises UsageError for given values that no recipe takes; the last of the usual ones are left aside where there are few recipes."""
        wrong, before = [], 1
        for field in VALUES:
            values = getattr(self, field)
            taken = min((self.recipes - 1) // before + 1, len(values))
            if taken < len(values) and (flags := effects.given(self, (field,))):
                left = ", ".join(f"{value:g}" for value in values[taken:])
                wrong.append(
                    f"{flags[0]}: no recipe takes {left}: from --recipes {before * (len(values) - 1) + 1} on one does"
                )
            before *= len(values)
        if wrong and not self.resume:
            raise UsageError(f"{'; '.join(wrong)} (they are taken in turn from each list, the first list the fastest)")

    def check_kind(self, texts: bool) -> None:
        """Raises UsageError for options of images where the data are texts, and the other way round."""
        effects.refuse(self, OF_IMAGES if texts else OF_TEXTS, f"for {'texts' if texts else 'images'}")

"""The options of `tna pretrain`."""

import dataclasses
from typing import Annotated, ClassVar, Literal, get_args

from tna_jax.programs.cli.arguments import DATA, Hidden, Known, Only
from tna_jax.programs.cli.choices import DATASETS, TextTask
from tna_jax.programs.cli.dataset_names import problem
from tna_jax.programs.cli.finetuning_options import TuningOptions
from tna_jax.programs.cli.ranges import COUNT, FOUR, NOT_NEGATIVE, POSITIVE, PROBABILITY, SHARE, Rule
from tna_jax.programs.cli.run_options import TrustOptions

VIT, BERT = Only("model", "vit"), Only("model", "bert")


@dataclasses.dataclass(frozen=True)
class PretrainOptions(TuningOptions, TrustOptions):
    """Train a ViT by classification or a BERT encoder by masked-language modeling, and write it as a Hugging Face folder."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "model", "dataset", "tasks", "data_dir", "width", "depth", "epochs", "batch_size", "learning_rate", "seed", "out",
    )  # fmt: skip

    model: Literal["vit", "bert"] = "vit"
    """vit: classify the images of --dataset; bert: predict hidden tokens of the training texts of --tasks."""
    dataset: Annotated[str, Rule(problem), Known(DATASETS), VIT] = "cifar10"
    """Images to classify (vit), as in tna train; also some classes (cifar10:0-4) and several sets (cifar10:0-4+cifar100_test), or
    images of your own."""
    target: Annotated[str | None, DATA, VIT] = None
    """Column of labels in your own data; default: label."""
    image_size: Annotated[int | None, COUNT, DATA, VIT] = None
    """Side in pixels to which images of your own folder are cropped and scaled; default: as they are, if all have one size."""
    dataset_sha256: Annotated[str | None, Hidden()] = None
    """The hash of the file of a function of the user's own, as a run records it."""
    data_fingerprint: Annotated[str | None, Hidden()] = None
    """The hash of the content of the user's own data, as a run records it."""
    tasks: Annotated[tuple[TextTask, ...], BERT] = get_args(TextTask)
    """Text tasks whose training texts are read (bert); their labels are not used."""
    width: Annotated[int, COUNT] = 128
    """Entries of a token."""
    depth: Annotated[int, COUNT] = 4
    """Number of blocks."""
    heads: Annotated[int | None, COUNT] = None
    """Attention heads; default: one for every 64 entries of the width."""
    patch: Annotated[int, COUNT, VIT] = 4
    """Side of a patch in pixels (vit)."""
    vocab: Annotated[int, BERT] = 4096
    """Entries of the tokenizer, which is trained on the same texts (bert)."""
    length: Annotated[int, FOUR, BERT] = 32
    """Tokens of a text; longer ones are cut (bert)."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.05
    """Weight decay, decoupled, of matrices."""
    label_smoothing: Annotated[float, SHARE, VIT] = 0.0
    """Share of a label's weight that is spread over all classes (vit)."""
    augmentation: Annotated[float, PROBABILITY, VIT] = 0.5
    """Strength of augmentation: moves, mirror images, brightness, contrast (vit)."""
    train_examples: Annotated[int | None, COUNT] = None
    """Use this many training examples; default: all."""
    test_examples: Annotated[int | None, COUNT] = None
    """Use this many test examples; default: all."""

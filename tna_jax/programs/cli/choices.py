"""The names that options take, stated here so that no program has to load JAX to refuse another one.

A test compares each with the registry of the library that it stands for.
"""

from typing import Literal, get_args

Placement = Literal["auto", "map", "vmap", "loop"]
Precision = Literal["float32", "tf32", "bf16"]
Augmentation = Literal["none", "crop", "flip", "crop-flip"]
Ties = Literal["keep", "drop"]
MergingMethod = Literal[
    "average", "slerp", "karcher", "model_stock", "task_arithmetic", "ties", "dare_linear", "dare_ties", "della", "della_linear",
    "breadcrumbs", "sce", "iso_c", "wudi",
]  # fmt: skip
DataAwareMethod = Literal["fisher", "regmean", "adamerging"]
FusingMethod = Literal[MergingMethod, DataAwareMethod]
MaskKind = Literal["bernoulli", "exact", "neurons", "per-unit"]
Initialization = Literal["same", "different"]
AnchorValues = Literal["initial", "normal"]
Schedule = Literal["constant", "cosine", "linear"]
Corruption = Literal["noise", "blur", "contrast"]
Norm = Literal["none", "batch", "layer", "group"]
Convolution = Literal["native", "slices"]
TextTask = Literal["sst2", "sst5", "mr", "cr", "mpqa", "subj", "trec", "cola", "rte", "ag_news"]
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "cifar100_test")
"""Beside them there are `tfds:NAME`, some classes of a set and several sets as one."""

ImageModel = Literal[
    "mlp", "cnn", "vgg11", "vgg13", "vgg16", "vgg19", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "wrn56_2", "wrn56_4", "wrn56_8", "resnet20_option_a", "vit", "vit_ti16", "vit_ti32", "vit_s16", "vit_s32",
    "vit_b16", "vit_b32", "vit_l16", "vit_l32", "dinov2", "dinov2_s", "dinov2_b", "dinov2_l",
]  # fmt: skip
TEXT_MODELS = ("bert", "roberta", "distilbert", "electra", "gpt2", "llama")
"""Networks whose names begin like this read text: programs that train on images do not offer them."""


def model_options(model: str) -> tuple[str, ...]:
    """Returns the options of a network for images: those of `ModelOptions` that it has."""
    if model in ("mlp", "vit", "dinov2"):
        return ("depth", "width", "norm") if model == "mlp" else ("depth", "width", "heads", "patch")
    if model.startswith(("vit_", "dinov2_")):
        return ("heads", "patch") if model.startswith("dinov2_") else ("heads",)
    return ("norm", "groups", "conv") if model.startswith("wrn") else ("norm", "groups", "widen", "conv")


Optimizer = Literal[
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "fromage",
    "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam",
    "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi",
]  # fmt: skip
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)
WITH_MOMENTUM = ("adafactor", "lars", "rmsprop", "sgd", "sm3")
"""Optimizers that have an option `momentum`."""

Objective = Literal["classification", "next-token", "masked-lm", "regression", "multi-label", "segmentation"]
OBJECTIVE_OPTIONS: dict[str, dict[str, type | tuple[str, ...]]] = {
    "next-token": {"ignore": int}, "masked-lm": {"ignore": int}, "segmentation": {"ignore": int},
    "regression": {"loss": ("squared", "absolute")},
}  # fmt: skip
"""The arguments of an objective, each with its type or the words it may be; the others have none."""

Algorithm = Literal["fedavg", "fedprox", "feddyn", "scaffold", "fednova", "moon", "fedlc", "fedsam"]
ServerName = Literal[
    "mean", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "feddf", "norm-bound", "median", "trimmed-mean", "krum"
]
Server = Literal[ServerName, Optimizer]
MaskSchedule = Literal["none", "pfn", "pnu", "pnu-rounds"]
Partition = Literal["dirichlet", "shard", "iid", "natural"]
Personalization = Literal["none", "head", "model"]
NormStatistics = Literal["none", "shared", "local"]

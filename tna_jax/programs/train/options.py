"""The options of `tna train`."""

import dataclasses
from typing import Annotated, ClassVar

from tna_jax.programs.cli.choices import Initialization
from tna_jax.programs.cli.code_options import AnyModelOptions
from tna_jax.programs.cli.options import Settings
from tna_jax.programs.cli.ranges import COUNT, SEED, SHARE


@dataclasses.dataclass(frozen=True)
class TrainOptions(Settings, AnyModelOptions):
    """Train an ensemble of networks with shared anchors and keep it in a run folder, for tna barrier, tna fuse and the like."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "members", "ratio", "init", "seed", "dataset", "model", "width", "epochs", "learning_rate", "optimizer", "recipe",
        "out", "memory_limit",
    )  # fmt: skip

    members: Annotated[int, COUNT] = 8
    """Number of networks."""
    ratio: Annotated[float, SHARE] = 0.4
    """Mask ratio: share of ANCHORED (fixed) weights; 0 is plain training."""
    init: Initialization = "same"
    """Initial values: the same for all networks, or different ones (with the anchors of the first network in all)."""
    seed: Annotated[int, SEED] = 0
    """Seed of initial values, anchors and data orders."""

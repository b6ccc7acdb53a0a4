"""The options of `tna lmc`."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tna_jax.programs.cli.code_options import AnyModelOptions
from tna_jax.programs.cli.evaluation_options import ALPHAS
from tna_jax.programs.cli.options import Settings
from tna_jax.programs.cli.ranges import COUNT, DIFFERENT, RATIOS, SEED


@dataclasses.dataclass(frozen=True)
class LmcOptions(Settings, AnyModelOptions):
    """Train pairs of networks with and without anchors, walk the line between the two of each pair, report the barriers."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "ratios", "seeds", "init", "methods", "dataset", "model", "width", "epochs", "learning_rate", "optimizer", "recipe",
        "out", "memory_limit",
    )  # fmt: skip

    ratios: Annotated[tuple[float, ...], RATIOS] = (0.0, 0.2, 0.4, 0.6, 0.8)
    """Mask ratios: shares of ANCHORED (fixed) weights; 0 is plain training."""
    seeds: Annotated[int, COUNT] = 5
    """Number of pairs per setting."""
    first_seed: Annotated[int, SEED] = 0
    """Seed of the first pair; the others follow."""
    init: Literal["same", "different", "both"] = "both"
    """Initial values of the two networks of a pair: the same, different ones (with shared anchors), or a pair of each kind."""
    methods: Annotated[tuple[Literal["tna", "prune"], ...], DIFFERENT] = ("tna", "prune")
    """tna: anchored weights keep their initial values; prune: they are zero (random pruning at initialization)."""
    alphas: Annotated[tuple[float, ...], ALPHAS] = (11.0,)
    """Points of each path: their number (odd), or the list of points, which must hold 0, 0.5 and 1."""

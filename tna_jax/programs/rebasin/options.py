"""The options of `tna rebasin`."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tna_jax.io.errors import collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Positional
from tna_jax.programs.cli.evaluation_options import MatchingOptions
from tna_jax.programs.cli.ranges import COUNT, DIFFERENT
from tna_jax.programs.cli.run_options import MachineOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RebasinOptions(MatchingOptions, MachineOptions):
    """Permute hidden units so that models match, and compare the barriers before, after, and with REPAIR."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "pairs", "methods", "restarts", "repair", "seed", "calibration_examples", "alphas", "placement", "memory_limit",
        "data_dir",
    )  # fmt: skip

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna train (or tna lmc)."""
    pairs: tuple[str, ...] = ()
    """Pairs of models, I-J with numbers from 0: J is matched to I; default: every model to the first."""
    methods: Annotated[tuple[Literal["weight", "activation"], ...], DIFFERENT] = ("weight", "activation")
    """Match by inner products of the weights (weight), by what hidden units compute (activation), or both."""
    restarts: Annotated[int, COUNT] = 1
    """Starts of weight matching; the best result is kept."""
    repair: bool = True
    """Also with REPAIR on top (networks without BatchNorm, whose statistics are estimated again in any case)."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(lambda: ranges.check(self), self.check_machine)

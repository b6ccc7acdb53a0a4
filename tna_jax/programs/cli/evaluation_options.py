"""The options of the programs that evaluate and match the models of finished runs. They import no JAX."""

import dataclasses
import math
from typing import Annotated, ClassVar

from tna_jax.programs.cli.choices import Placement
from tna_jax.programs.cli.ranges import BOUND, COUNT, SEED, Rule


def _alphas(flag: str, alphas: tuple[float, ...]) -> str:
    if len(alphas) == 1 and 3 <= alphas[0] < math.inf and alphas[0] % 2 == 1:
        return ""  # the usual case, for which NumPy need not be imported
    from tna_jax.alphas import check_alphas, grid

    try:
        grid(int(alphas[0])) if len(alphas) == 1 else check_alphas(alphas)
    except (ValueError, OverflowError) as error:
        return f"{flag}: {error}"
    return ""


ALPHAS = Rule(_alphas)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDataOptions:
    """Where are the data sets of a finished run?"""

    SECTION: ClassVar[str] = "data"

    data_dir: str | None = None
    """Folder that holds the data sets, if not where $TNA_DATA_DIR says."""
    trust_code: bool = False
    """Run code that a run folder names although you never named that file here, or it has changed: read it first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions(RunDataOptions):
    """How are the paths between models evaluated?"""

    SECTION: ClassVar[str] = "evaluation"

    alphas: Annotated[tuple[float, ...], ALPHAS] = (11.0,)
    """Points of each path: their number (odd), or the list of points, which must hold 0, 0.5 and 1."""
    calibration_examples: Annotated[int, COUNT] = 2000
    """Training examples on which BatchNorm's statistics are estimated again, and for REPAIR and activation matching."""
    placement: Placement = "auto"
    """How models share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""
    memory_limit: Annotated[float | None, BOUND] = None
    """Memory the models may take, in GB; default: a third of what is free."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingOptions(EvaluationOptions):
    """How are models matched?"""

    seed: Annotated[int, SEED] = 0
    """Seed of the order in which matching searches."""
    restarts: Annotated[int | None, COUNT] = None
    """Starts of each search of matching; the best result is kept; default: 1 for two models, 4 for all models to their mean."""
    reset_ends: bool = False
    """Estimate BatchNorm's statistics again for the models themselves too, on the same examples: in any case it is done for all models
    between them and for soups."""

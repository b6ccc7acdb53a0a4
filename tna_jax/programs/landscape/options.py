"""The options of `tna landscape`."""

import dataclasses
from typing import Annotated

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Positional
from tna_jax.programs.cli.choices import Placement
from tna_jax.programs.cli.evaluation_options import RunDataOptions
from tna_jax.programs.cli.ranges import COUNT, THREE, Range
from tna_jax.programs.cli.run_options import MachineOptions

ORIGIN = "origin"
MARGIN = Range("lie in [0, 10)", lambda value: 0 <= value < 10, "in [0, 10)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandscapeOptions(RunDataOptions, MachineOptions):
    """Draw loss and accuracy on the plane through three models of a run, as contours."""

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna train (or tna lmc)."""
    models: tuple[str, ...] = ("0", "1", "2")
    """Three models, by their numbers in plan.json, or two and the word origin: the initial values of the first."""
    points: Annotated[int, THREE] = 25
    """Points of the grid along each axis."""
    margin: Annotated[float, MARGIN] = 0.25
    """How far the (square) grid reaches beyond the three models, as a share of their larger extent."""
    test_examples: Annotated[int, COUNT] = 2000
    """Test examples to evaluate on, the first ones."""
    calibration_examples: Annotated[int, COUNT] = 2000
    """Training examples on which BatchNorm's statistics are estimated again at each point."""
    placement: Placement = "auto"
    """How the points share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(lambda: ranges.check(self), self.check_machine, self.check_models)

    def check_models(self) -> None:
        """Raises UsageError unless three different models are named."""
        if len(self.models) != 3 or len(set(self.models)) != 3 or ORIGIN in self.models[:2]:
            raise UsageError("--models must be three different numbers, or two numbers and then the word origin")

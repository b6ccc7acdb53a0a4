"""The options of `tna barrier`."""

import dataclasses
from typing import Annotated, Literal

from tna_jax.io.errors import collect_errors
from tna_jax.programs.cli import effects, ranges
from tna_jax.programs.cli.arguments import Only, Positional
from tna_jax.programs.cli.evaluation_options import EvaluationOptions
from tna_jax.programs.cli.ranges import COUNT, POSITIVE
from tna_jax.programs.cli.run_options import MachineOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarrierOptions(EvaluationOptions, MachineOptions):
    """Walk the line between every two models of a run (or the named ones) and report the barriers."""

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna train (or tna lmc)."""
    pairs: tuple[str, ...] = ()
    """Pairs of models, I-J with numbers from 0 as in plan.json, for example 0-1 0-2; default: all pairs."""
    by: tuple[Literal["layer", "epoch"], ...] = ()
    """Also the barrier of each layer alone (all others stay as they are), or after each epoch whose checkpoint was kept
    (tna train --checkpoint-every 1 --checkpoints-kept 1000)."""

    curve_epochs: Annotated[int | None, COUNT] = None
    """Also train the middle of a curved path (quadratic Bezier) between the models of each pair, for so many passes over the training
    examples: how low the loss can stay on the way from one to the other, where the straight line is no way."""
    curve_learning_rate: Annotated[float, POSITIVE, Only("curve_epochs")] = 1e-3
    """Step size of Adam, which trains it."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(lambda: ranges.check(self), self.check_machine, lambda: effects.check(self))

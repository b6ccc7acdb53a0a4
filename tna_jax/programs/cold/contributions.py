"""What contributors send back: a body that is not finite is left out of the average, as `tna federate` refuses such a reply."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tna_jax import trees
from tna_jax.averaging import average_stacked
from tna_jax.masks import Params
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.reports.statistics import or_none


class Contribution(NamedTuple):
    """A contributor's model after the training of an iteration."""

    task: str
    """Its name."""
    body: Params
    head: Params
    loss: float
    """Mean training loss of its last epoch."""

    @property
    def finite(self) -> bool:
        """Whether all its parameters are finite."""
        return not trees.names_not_finite((self.body, self.head))

    def record(self, variant: dict[str, Any], iteration: int) -> dict[str, Any]:
        """Returns what cold.json holds of it; a loss that is not finite is null there."""
        loss = or_none(self.loss)
        return {
            **variant,
            "iteration": iteration,
            "task": self.task,
            "loss": loss,
            "diverged": loss is None or not self.finite,
        }


def accepted(contributions: Sequence[Contribution], where: str, average_diverged: bool) -> list[int]:
    """Returns the numbers of those of one fusion that are averaged, and names the others on the screen.

    Args:
      contributions: of all contributors.
      where: which fusion and iteration.
      average_diverged: accept all, as `--average-diverged` asks for.
    """
    finite = [each.finite for each in contributions]
    wrong = [each.task for each, sound in zip(contributions, finite, strict=True) if not sound]
    kept = [i for i, sound in enumerate(finite) if average_diverged or sound]
    if wrong:
        then = (
            "averaged all the same"
            if average_diverged
            else "left out of the average"
            if kept
            else "the body stays as it was"
        )
        print_warning(f"{where}: {', '.join(wrong)} diverged: values that are not finite, {then}")
    return kept


def average(bodies: Sequence[Params]) -> Params:
    """Averages bodies as `cold_fusion.fuse` does, a leaf at a time: of many large ones no second copy is made."""
    shares = np.ones(len(bodies), np.float32)
    return jax.tree.map(lambda *leaves: np.asarray(average_stacked([np.stack(leaves)], shares)[0]), *bodies)

"""The options of every program that trains transformers: AdamW with a warm-up and a cosine, memory, where it goes. They import no JAX."""

import dataclasses
from typing import Annotated, ClassVar

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, ranges
from tna_jax.programs.cli.arguments import DATA, MACHINE
from tna_jax.programs.cli.choices import Placement
from tna_jax.programs.cli.ranges import BOUND, COUNT, PATTERN, SEED, SHARE
from tna_jax.programs.cli.run_options import MachineOptions, RunOptions


@dataclasses.dataclass(frozen=True)
class TuningOptions(RunOptions, MachineOptions):
    """How are they trained?"""

    SECTION: ClassVar[str] = "training"

    epochs: Annotated[int, COUNT] = 3
    """Passes over the training data."""
    batch_size: Annotated[int, COUNT] = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    warmup: Annotated[float, SHARE] = 0.1
    """Share of the steps over which the learning rate rises from 0; then it falls to 0 in a half cosine."""
    clip: Annotated[float, BOUND] = 1.0
    """Largest norm of a gradient (of its trainable entries); larger ones are scaled down."""
    accumulate: Annotated[int, COUNT] = 1
    """Parts a batch is cut into whose gradients are summed: the same step in less memory."""
    remat: bool = False
    """Keep only the blocks' inputs for the gradient and compute the rest again: less memory, more time."""
    placement: Annotated[Placement, MACHINE] = "auto"
    """How models share a device: one after the other (map), in lockstep (vmap), in a plain Python loop (loop)."""
    memory_limit: Annotated[float | None, BOUND, MACHINE] = None
    """Memory the models may take, in GB, on each device (CPU: in all); default: what is free. What does not fit trains in waves."""
    data_dir: Annotated[str | None, DATA] = None
    """Folder that holds the data sets; $TNA_DATA_DIR is searched after it."""
    seed: Annotated[int, SEED] = 0
    """Seed of initial values, anchors, data orders and held-out examples."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            lambda: ranges.check(self),
            self.check_machine,
            self.check_run,
            self.check_tuning,
            lambda: effects.check(self),
        )

    def check_tuning(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.accumulate >= 1 and self.batch_size % self.accumulate:
            raise UsageError(f"--accumulate {self.accumulate} does not divide --batch-size {self.batch_size}")


@dataclasses.dataclass(frozen=True)
class FreezeOptions:
    """Which parts of a checkpoint are not trained at all?"""

    SECTION: ClassVar[str] = "anchors"

    freeze: Annotated[str | None, PATTERN] = None
    """Leaves that stay as the checkpoint has them, by a regular expression of their path: embedding|layer_[01]/ are the table of words
    and two layers. They are anchored as a whole, cost no gradient and no optimizer state; --ratios is of the others."""

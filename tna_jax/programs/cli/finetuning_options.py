"""Options and the common part of every program that trains transformers: AdamW, warm-up and cosine, memory, stops."""

import dataclasses
from typing import Any, get_args

import jax.numpy as jnp

from tna_jax import finetuning
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError, collect_errors, unknown
from tna_jax.placement import Placement
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.options import RunOptions
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE, SHARE
from tna_jax.programs.system.distributed import HostOptions

RANGES = {"epochs": COUNT, "batch_size": COUNT, "accumulate": COUNT, "seed": NOT_NEGATIVE, "warmup": SHARE, "clip": BOUND,
          "memory_limit": BOUND}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TuningOptions(RunOptions, HostOptions):
    """How are they trained?"""

    epochs: int = 3
    """Passes over the training data."""
    batch_size: int = 32
    """Examples per step; the last batch of an epoch may be smaller."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises from 0; then it falls to 0 in a half cosine."""
    clip: float = 1.0
    """Largest norm of a gradient (of its trainable entries); larger ones are scaled down."""
    accumulate: int = 1
    """Parts a batch is cut into whose gradients are summed: the same step in less memory."""
    remat: bool = False
    """Keep only the blocks' inputs for the gradient and compute the rest again: less memory, more time."""
    placement: str = "auto"
    """How the models share a device: auto, map (one after the other), vmap (in lockstep), loop (plain Python)."""
    memory_limit: float | None = None
    """Memory the models may take, in GB, on each device (CPU: in all); default: what is free. What does not fit trains in waves."""
    data_dir: str | None = None
    """Folder that holds the data sets; then $TNA_DATA_DIR is searched."""
    seed: int = 0
    """Seed of initial values, anchors, data orders and held-out examples."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(super().check, self.check_run, self.check_tuning)

    def check_tuning(self) -> None:
        """Raises UsageError for the options of this class."""
        if self.resume and (self.overwrite or self.out is None):
            raise UsageError("--resume needs the --out of the run to go on with, and no --overwrite")
        uneven = self.accumulate >= 1 and self.batch_size % self.accumulate
        uneven_words = f"--accumulate {self.accumulate} does not divide --batch-size {self.batch_size}"
        ranges.require(self, RANGES, [uneven_words] if uneven else [])
        if self.placement not in get_args(Placement):
            raise unknown("--placement", self.placement, get_args(Placement))

    @property
    def module_options(self) -> dict[str, Any]:
        """What the options say of a module."""
        return {"dtype": jnp.bfloat16 if self.precision == "bf16" else None, "remat": self.remat}

    def trainer(self, network: Any, examples: int, epochs: int | None = None, **fields: Any) -> Trainer:
        """The trainer of a network on `examples` examples; raises UsageError if they do not fill a batch."""
        if self.batch_size > examples:
            raise UsageError(f"--batch-size {self.batch_size} is larger than the {examples} training examples")
        steps = (self.epochs if epochs is None else epochs) * -(-examples // self.batch_size)
        warmup = min(round(self.warmup * steps), steps - 1)
        optimizer = finetuning.adamw(steps, warmup, self.clip)
        placement: Any = self.placement
        return Trainer(network, optimizer, self.batch_size, placement, accumulate=self.accumulate, **fields)

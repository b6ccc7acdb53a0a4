"""The options of `tna fuse`."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Alias, Positional
from tna_jax.programs.cli.choices import Ties
from tna_jax.programs.cli.evaluation_options import MatchingOptions
from tna_jax.programs.cli.ranges import COUNT
from tna_jax.programs.cli.run_options import MachineOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseOptions(MatchingOptions, MachineOptions):
    """Make one model out of many: best single model, uniform and greedy soup, ensemble, and the barriers of all pairs."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "models", "matching", "repair", "ties", "held_out_examples", "calibration_examples", "alphas", "placement",
        "memory_limit", "data_dir", "out", "format",
    )  # fmt: skip

    runs: Annotated[tuple[str, ...], Positional("RUN")]
    """Run folders of tna train (or tna lmc): the models of all of them are fused. Results go to the first."""
    models: tuple[int, ...] = ()
    """Fuse only these: their numbers, from 0 through all runs in order; default: all."""
    matching: Literal["none", "weight", "activation"] = "none"
    """Permute hidden units first: weight (MergeMany: each model to the mean of the others), activation (all to the first)."""
    repair: bool = False
    """Rescale the hidden units of each average to the activations of its models (REPAIR); for networks without BatchNorm."""
    ties: Ties = "keep"
    """Greedy soup: keep or drop a model that leaves the held-out accuracy as it is."""
    held_out_examples: Annotated[int, COUNT] = 5000
    """Training examples by which the best model and the greedy soup are chosen: those left out by --train-examples, if any."""
    out: Annotated[str | None, Alias("-o")] = None
    """Write the best model, the uniform and the greedy soup into this folder; default: write none."""
    format: Literal["run", "safetensors", "hf"] = "run"
    """With --out: a run folder whose models they are, safetensors files (tna import reads them), or Hugging Face folders (vit)."""
    overwrite: bool = False
    """Replace --out."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(self.check_runs, lambda: ranges.check(self), self.check_machine)

    def check_runs(self) -> None:
        """Raises UsageError unless a run is named."""
        if not self.runs:
            raise UsageError("name one or more run folders of tna train")

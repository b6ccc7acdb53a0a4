"""The options of `tna export`."""

import dataclasses
from typing import Annotated, Literal

from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Alias, Positional
from tna_jax.programs.cli.evaluation_options import RunDataOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(RunDataOptions):
    """Write one model of a run as a file that says what is needed to compute with it, or as a Hugging Face folder."""

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna train (or tna lmc)."""
    model: int | None = None
    """Number of the model, from 0 as in plan.json; may be left out where the run has one."""
    out: Annotated[str | None, Alias("-o")] = None
    """File or folder to write; default: RUN/model-I.safetensors, or RUN/model-I for hf."""
    format: Literal["safetensors", "hf"] = "safetensors"
    """A safetensors file with the run's options and the recipe of its anchors, or a Hugging Face folder (vit, dinov2)."""
    overwrite: bool = False
    """Replace the file, or the model in the folder."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any file is read."""
        ranges.check(self)

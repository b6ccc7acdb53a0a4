"""The options of `tna export`."""

import dataclasses
from typing import Annotated

from tna_jax.programs.cli.arguments import Alias, Positional


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write one model of a run as a safetensors file, with what made it and the recipe of its anchors inside."""

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna train (or tna lmc)."""
    model: int | None = None
    """Number of the model, from 0 as in plan.json; may be left out where the run has one."""
    out: Annotated[str | None, Alias("-o")] = None
    """File to write; default: RUN/model-I.safetensors."""
    overwrite: bool = False
    """Replace the file."""

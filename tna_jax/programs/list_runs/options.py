"""The options of `tna runs`."""

import dataclasses
from typing import Annotated

from tna_jax.programs.cli.arguments import Positional


@dataclasses.dataclass(frozen=True)
class RunsOptions:
    """List the runs in a folder: how far each is, in what they differ, and what came out."""

    folder: Annotated[str, Positional("DIR")] = "runs"
    """Folder that holds run folders, at any depth."""

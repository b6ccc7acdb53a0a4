"""The options of `tna import`."""

import dataclasses
from typing import Annotated

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, ranges
from tna_jax.programs.cli.arguments import Alias, Only, Positional


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Make a run folder of exported models, for tna barrier and whatever else reads one."""

    files: Annotated[tuple[str, ...], Positional("FILE")]
    """Files of tna export, of one network: each becomes a model of the run, numbered in this order."""
    out: Annotated[str | None, Alias("-o")] = None
    """Run folder to make; default: runs/import-TIME."""
    overwrite: Annotated[bool, Only("out")] = False
    """Replace the run in --out."""

    def check(self) -> None:
        """Raises UsageError unless there are files, each named once."""
        if not self.files:
            raise UsageError("name one or more files of tna export")
        collect_errors(lambda: ranges.check(self), lambda: effects.check(self))
        twice = [file for file in dict.fromkeys(self.files) if self.files.count(file) > 1]
        if twice:
            raise UsageError(f"named more than once: {', '.join(twice)}; each would count as a model of its own")

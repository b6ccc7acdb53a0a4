"""The options of `tna report`."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Alias, Positional


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write one HTML file on one or more runs, which opens anywhere without a network."""

    runs: Annotated[tuple[str, ...], Positional("RUN")]
    """Run folders of any program, or results files; several stand side by side."""
    out: Annotated[str | None, Alias("-o")] = None
    """File to write, which is replaced if it is there; default: report.html in the run folder; of several runs, in this folder."""
    figures: str | None = None
    """Folder into which every figure is written as SVG as well, and its data as CSV."""
    split: Literal["test", "train"] = "test"
    """Data that the numbers and curves are of."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any file is read."""
        collect_errors(self.check_runs, lambda: ranges.check(self), self.check_out)

    def check_runs(self) -> None:
        """Raises UsageError unless a run is named."""
        if not self.runs:
            raise UsageError("name one or more run folders")

    def check_out(self) -> None:
        """Raises UsageError for a file that cannot be written."""
        if self.out is None:
            return
        if Path(self.out).suffix not in (".html", ".htm"):
            raise UsageError(f"--out {self.out} must end in .html")
        if os.path.isdir(self.out):
            raise UsageError(f"--out {self.out} is a folder; name a file in it, {Path(self.out) / 'report.html'}")
        if not os.path.isdir(Path(self.out).parent):
            raise UsageError(f"--out {self.out}: there is no folder {Path(self.out).parent}")

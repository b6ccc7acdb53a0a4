"""`tna report RUN... -o FILE`: one HTML file on one or more runs, which opens anywhere without a network.

Run folders -> what they hold by kind (`reports.kinds`) -> tables and figures as data (`reports.blocks`) -> a page (`reports.page`)
"""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import tyro

from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import write_atomic
from tna_jax.programs.cli.launch import launch
from tna_jax.programs.reports import kinds, page

SPLITS = ("test", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `tna report`."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders of any program, or results files; several stand side by side."""
    out: Annotated[str | None, tyro.conf.arg(aliases=["-o"])] = None
    """File to write, which is replaced if it is there; default: report.html in the run folder, of several in this folder."""
    split: str = "test"
    """Data that the numbers and curves are of: test or train."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any file is read."""
        if not self.runs:
            raise UsageError("name one or more run folders")
        if self.split not in SPLITS:
            raise unknown("--split", self.split, SPLITS)
        if self.out is not None and Path(self.out).suffix not in (".html", ".htm"):
            raise UsageError(f"--out {self.out} must end in .html")
        if self.out is not None and os.path.isdir(self.out):
            raise UsageError(f"--out {self.out} is a folder; name a file in it, {Path(self.out) / 'report.html'}")
        if self.out is not None and not os.path.isdir(Path(self.out).parent):
            raise UsageError(f"--out {self.out}: there is no folder {Path(self.out).parent}")
        page.require()


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("report", ReportOptions, run, arguments, __doc__)


def run(settings: ReportOptions) -> Path:
    """Writes the report and returns where it is."""
    settings.check()
    stories = [kinds.read(name, settings.split) for name in settings.runs]
    out = Path(settings.out) if settings.out else _default(settings.runs)
    data = page.render(stories).encode()
    write_atomic(out, data)
    print(f"wrote {out} ({len(data) / 1e6:.1f} MB, one file; open it in any browser)")
    return out


def _default(runs: tuple[str, ...]) -> Path:
    return (Path(runs[0]) if len(runs) == 1 and Path(runs[0]).is_dir() else Path()) / "report.html"

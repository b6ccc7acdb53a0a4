"""`tna report RUN... -o FILE`: one HTML file on one or more runs, which opens anywhere without a network.

Run folders -> what they hold by kind (`reports.kinds`) -> tables and figures as data (`reports.blocks`) -> a page (`reports.page`)
"""

from pathlib import Path

from tna_jax.io.json_files import write_atomic
from tna_jax.programs.report.options import ReportOptions
from tna_jax.programs.reports import kinds, page


def run(settings: ReportOptions) -> Path:
    """Writes the report and returns where it is."""
    settings.check()
    page.require()
    stories = [kinds.read(name, settings.split) for name in settings.runs]
    out = Path(settings.out) if settings.out else _default(settings.runs)
    data = page.render(stories).encode()
    write_atomic(out, data)
    print(f"wrote {out} ({len(data) / 1e6:.1f} MB, one file; open it in any browser)")
    return out


def _default(runs: tuple[str, ...]) -> Path:
    return (Path(runs[0]) if len(runs) == 1 and Path(runs[0]).is_dir() else Path()) / "report.html"

"""`tna report RUN... -o FILE`: one HTML file on one or more runs, which opens anywhere without a network.

Run folders -> what they hold by kind (`reports.kinds`) -> tables and figures as data (`reports.blocks`) -> a page (`reports.page`)
"""

from pathlib import Path

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.io.json_files import write_atomic
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import plural, size
from tna_jax.programs.report.options import ReportOptions
from tna_jax.programs.reports import figure_files, kinds, page
from tna_jax.programs.runs.folder import CONFIG, Run


def run(settings: ReportOptions) -> Path:
    """Writes the report and returns where it is."""
    settings.check()
    page.require()
    opened = [Run.open(name) for name in settings.runs if (Path(name) / CONFIG).is_file()]
    stories = [kinds.read(name, settings.split) for name in settings.runs]
    collect_errors(*(run.require_same for run in opened))
    out = Path(settings.out) if settings.out else _default(settings.runs)
    data = page.render(stories).encode()
    try:
        write_atomic(out, data)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror or error}; name another place with -o FILE") from error
    if settings.figures is not None:
        count = figure_files.write(stories, Path(settings.figures))
        print(f"wrote {plural(count, 'figure')} into {settings.figures}, each as SVG and CSV")
    wrote(f"{out} ({size(len(data))}, one file; open it in any browser)", *_next(settings.runs))
    return out


def _next(runs: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the command that lists the runs beside the first one."""
    first = Path(runs[0])
    if not (first / CONFIG).is_file():
        return ()
    return "tna", "runs", str(first.parent if first.name not in ("", "..") else first.resolve().parent)


def _default(runs: tuple[str, ...]) -> Path:
    return (Path(runs[0]) if len(runs) == 1 and Path(runs[0]).is_dir() else Path()) / "report.html"

"""The page: stories of runs set into one HTML file that carries its style, its data and the plotting library.

The library is Plotly.js (MIT), out of the PyPI package `plotly`, which holds it for pages without a network. It draws SVG, sharp in
print and on a phone, with contours, tooltips and traces that can be hidden. Bokeh is a quarter of its size but draws on a canvas
and needs pandas; Vega has no contours of a grid; ECharts is in no well-kept Python package. Its 4.8 MB are packed with gzip, which
every browser since 2023 undoes itself, so that a report takes 2 MB. A Content-Security-Policy in the page forbids any request.
"""

import base64
import dataclasses
import functools
import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tna_jax
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.messages import shell_words
from tna_jax.programs.cli.parsing import ABOUT
from tna_jax.programs.cli.progress import plural, size
from tna_jax.programs.reports.blocks import Number, Table
from tna_jax.programs.reports.figures import Contours, Correlations, Curve, Curves
from tna_jax.programs.reports.interactive import plot
from tna_jax.programs.reports.kinds import Story
from tna_jax.programs.reports.wording import dataset_name

HERE = Path(__file__).parent
INSTALL = "pip install 'tna-jax[cli]'"


def require() -> None:
    """Raises UsageError, which names the command, if what draws the page is not installed."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise UsageError(f"a report needs {error.name}: {INSTALL}") from error


def render(stories: list[Story]) -> str:
    """The HTML of a report on one or more runs; the same runs give the same text."""
    import jinja2
    from markupsafe import Markup

    labels = unique([story.name for story in stories])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["grouped"] = grouped
    environment.filters["plot"] = plot
    environment.filters["minus"] = minus
    environment.filters["finite"] = to_json  # JSON has no NaN
    ids = itertools.count(1)
    title = labels[0] if len(stories) == 1 else f"{len(stories)} runs: {', '.join(labels)}"
    return environment.get_template("page.html").render(
        title=title,
        version=tna_jax.__version__,
        style=Markup((HERE / "page.css").read_text()),
        program=Markup((HERE / "page.js").read_text()),
        library=library(),
        figure_id=lambda: f"figure-{next(ids)}",
        stories=[
            story_fields(story, label, i) for i, (story, label) in enumerate(zip(stories, labels, strict=True), 1)
        ],
        compared=compared(stories, labels) if len(stories) > 1 else None,
    )


@functools.cache
def library() -> str:
    """Plotly.js, gzip, base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def unique(names: list[str]) -> list[str]:
    """The names, those that occur more than once numbered."""
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def story_fields(story: Story, label: str, index: int) -> dict[str, Any]:
    """What the page says of one run, in the template's words."""
    config = story.config
    length = next((_count(config[unit], unit) for unit in ("rounds", "iterations", "epochs") if unit in config), "")
    what = [dataset_name(config), story.network, length]
    return {
        "label": label,
        "slug": f"run-{index}",
        "state": story.state,
        "what": ", ".join(word for word in what if word),
        "command": command(config),
        "notes": [note for part in story.parts for note in part.notes],
        "numbers": [number for part in story.parts for number in part.numbers if not number.minor],
        "parts": story.parts,
        "provenance": list(flat(story.provenance)),
        "options": [(name, format_value(value)) for name, value in config.items() if name not in ABOUT],
    }


def _count(value: Any, unit: str) -> str:
    return plural(value, unit.removesuffix("s")) if isinstance(value, int) else f"{value} {unit}"


def minus(text: str) -> str:
    """Returns a text of a table with the sign for minus before its negative numbers; `0-1` is a pair, `1e-5` a power."""
    return re.sub(r"(?<![\w.)-])-(?=\d)", "−", text)


def command(config: dict[str, Any]) -> str:
    """The command of a run: its program with the options that are not the program's own, as far as they are known."""
    from tna_jax.programs.cli.catalog import PROGRAMS, options_of
    from tna_jax.programs.cli.parsing import defaults, to_words

    name = config.get("program")
    if name not in PROGRAMS:
        return ""
    usual = defaults(options_of(name))
    given = {key: value for key, value in config.items() if key not in ABOUT and value != usual.get(key)}
    return shell_words("tna", name, *to_words(given))


def flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """A nested object as names and texts."""
    for name, inner in value.items():
        if name == "format" or inner in ("", None, []):
            continue
        title = f"{before} {name}".strip().replace("_", " ")
        if isinstance(inner, dict):
            yield from flat(inner, "" if name == "versions" else title)
        else:
            is_size = "bytes" in title and isinstance(inner, int) and not isinstance(inner, bool)
            yield (
                title.replace("bytes", "memory") if is_size else title,
                size(inner) if is_size else format_value(inner),
            )


def format_value(value: Any) -> str:
    """A value of a configuration in words."""
    if isinstance(value, list) and all(isinstance(one, int | float | str) for one in value):
        return " ".join(map(format_value, value))
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def grouped(blocks: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yields figures that follow each other, which stand side by side, and tables."""
    for tables, group in itertools.groupby(blocks, lambda block: isinstance(block, Table)):
        yield "tables" if tables else "figures", list(group)


def compared(stories: list[Story], labels: list[str]) -> dict[str, Any]:
    """The numbers and the options of several runs side by side, and the curves that more than one of them has on one chart."""
    found = [{n.label: n for part in story.parts for n in part.numbers} for story in stories]
    names = {
        n: None for numbers in found for n, one in numbers.items() if not one.minor or sum(n in f for f in found) > 1
    }
    rows = [[name, *(_shown(numbers.get(name)) for numbers in found)] for name in names]
    options = dict.fromkeys(name for story in stories for name in story.config if name not in ABOUT)
    differing = [
        [name, *(format_value(story.config.get(name)) for story in stories)]
        for name in options
        if any(story.config.get(name) != stories[0].config.get(name) for story in stories)
    ]
    charts: dict[str, list[tuple[str, Curves, Curve]]] = {}
    for story, label in zip(stories, labels, strict=True):
        for figure in (figure for part in story.parts for figure in part.figures if isinstance(figure, Curves)):
            named = [curve for curve in figure.curves if figure.compared and not curve.thin]
            for curve in named:
                chart = figure.title if len(named) == 1 else f"{figure.title}, {curve.name}"
                charts.setdefault(chart, []).append((label, figure, curve))
    figures = [
        Curves(title=chart, alt=f"Line chart of {chart}, a line for each run: {', '.join(label for label, _, _ in lines)}.",
               curves=[Curve(label, curve.x, curve.y, curve.std) for label, _, curve in lines], xaxis=lines[0][1].xaxis,
               yaxis=lines[0][1].yaxis, least=max(figure.least for _, figure, _ in lines),
               from_zero=all(figure.from_zero for _, figure, _ in lines))
        for chart, lines in charts.items()
        if len(lines) > 1
    ]  # fmt: skip
    return {
        "numbers": Table("headline numbers", ["", *labels], rows),
        "options": Table("options in which the runs differ", ["", *labels], differing),
        "figures": figures,
        "planes": side_by_side(stories, labels),
    }


def side_by_side(stories: list[Story], labels: list[str]) -> list[Contours | Correlations]:
    """Returns the planes and the correlations of units that more than one run has, each with its run's name, planes on one scale."""
    shared: dict[str, list[tuple[str, Contours | Correlations]]] = {}
    for story, label in zip(stories, labels, strict=True):
        for figure in (figure for part in story.parts for figure in part.figures):
            if isinstance(figure, Contours) or (isinstance(figure, Correlations) and figure.compared):
                shared.setdefault(figure.title, []).append((label, figure))
    pictures: list[Contours | Correlations] = []
    for title, group in shared.items():
        if len(group) < 2:
            continue
        ends = [figure.ends() for _, figure in group if isinstance(figure, Contours)]
        for label, figure in group:
            named = dataclasses.replace(figure, title=f"{title}: {label}")
            if isinstance(named, Contours):
                named = dataclasses.replace(named, scale=(min(low for low, _ in ends), max(high for _, high in ends)))
            pictures.append(named)
    return pictures


def _shown(number: Number | None) -> str:
    return "–" if number is None else f"{number.value} ({number.note})" if number.note else number.value

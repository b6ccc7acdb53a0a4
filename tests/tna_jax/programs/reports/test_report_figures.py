"""The figures of `tna report`: what Plotly draws, landscapes in three dimensions, SVG and CSV beside."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.tna_jax.programs.reports.pages import LMC, report
from tna_jax.programs.cli.main import main
from tna_jax.programs.reports import interactive
from tna_jax.programs.reports.figures import Matrix

pytest.importorskip("jinja2")
graph_objects = pytest.importorskip("plotly.graph_objects")


def test_figures_have_only_what_plotly_knows(trained):
    charts = report(trained, LMC).charts()
    for drawn in [*charts, *filter(None, (chart["turned"] for chart in charts))]:
        plain = re.sub(r'"@\w+(/[\d.]+)?"', '"#123456"', json.dumps({key: drawn[key] for key in ("data", "layout")}))
        graph_objects.Figure(**json.loads(plain))
    assert {trace["type"] for chart in charts for trace in chart["data"]} == {"scatter", "heatmap", "contour"}


def test_a_landscape_can_be_turned_and_is_the_same_in_three_dimensions(trained):
    stored = json.loads((trained / "landscape.json").read_text())
    chart = next(chart for chart in report(trained).charts() if chart["turned"])
    surface, *_, marks = chart["turned"]["data"]
    assert surface["type"] == "surface" and surface["customdata"] == stored["loss"]
    low, high = chart["data"][0]["zmin"], chart["data"][0]["zmax"]
    height = np.clip(np.log10(np.array(stored["loss"], float)), low, high)
    assert (surface["cmin"], surface["cmax"]) == (low, high) and np.allclose(surface["z"], height)
    assert marks["x"] == [model["x"] for model in [*stored["models"], stored["soup"]]]
    assert all(height.min() <= z <= height.max() + 0.1 * (high - low) for z in marks["z"])  # they lie on it


@pytest.mark.slow
def test_the_data_of_each_figure_are_unrounded_and_in_files_beside(trained):
    stored = json.loads((trained / "barrier.json").read_text())
    page = report(trained, more=("--figures", "files"))
    files = {file.name for file in Path("files").iterdir()}
    assert {file.removesuffix(".csv") for file in files if file.endswith(".csv")} == {
        file.removesuffix(".svg") for file in files if file.endswith(".svg")
    }
    assert len(files) == 2 * len(page.charts())
    assert {chart["csv"] for chart in page.charts()} == {file.read_text() for file in Path("files").glob("*.csv")}
    path = next(row["accuracy_path"] for row in stored["rows"] if row["pair"] == [0, 1] and row["split"] == "test")
    lines = Path("files/accuracy-along-the-path.csv").read_text().splitlines()
    assert lines[0] == 'curve,"α, from one model (0) to the other (1)",test accuracy,standard deviation'
    assert [float(line.split(",")[2]) for line in lines if line.startswith("0-1,")] == pytest.approx(path)
    drawn = Path("files/accuracy-along-the-path.svg").read_bytes()
    assert main(["report", str(trained), "-o", "again.html", "--figures", "again"]) == 0
    assert Path("again/accuracy-along-the-path.svg").read_bytes() == drawn and b"<svg" in drawn


def test_a_matrix_is_symmetric_and_skips_what_is_not_finite():
    values = {(0, 1): 0.5, (1, 2): float("nan")}
    chart = interactive.plot(Matrix(title="t", alt="a", names=["0", "1", "2"], values=values, what="x"))
    assert chart.traces[0]["z"] == [[None, 0.5, None], [0.5, None, None], [None, None, None]]

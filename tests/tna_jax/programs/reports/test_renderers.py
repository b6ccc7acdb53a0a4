"""A description says the same on the terminal, on the PNG and on the page; its numbers are those of the result."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.parameters import slow_but
from tna_jax.programs.reports import interactive, kinds, logs, page, png, statistics, terminal
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import Contours, Curve, Curves, Dot, Dots, Matrix, Point

RESULTS = [Path(__file__).parents[4] / name for name in (
    "train/results/digits_lmc.json", "fusion/results/soup.json", "fusion/results/cold.json")]  # fmt: skip


def described(file: Path):
    return kinds.describe(file, json.loads(file.read_text()), "test")


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_terminal_has_every_cell_of_every_table_in_whatever_width(file, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    description = described(file)
    terminal.show(description)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert max(map(len, lines)) <= width
    for table in description.tables:
        for row in table.rows:
            for cell in row[table.keys :]:
                assert any(cell in line and row[table.keys - 1] in line for line in lines), cell
    assert all(sentence.split()[0] in printed for sentence in description.remarks)


@pytest.mark.parametrize("file", slow_but(RESULTS[:1], RESULTS), ids=lambda file: file.stem)
def test_png_and_page_draw_the_same_numbers(file, tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    grids = []
    monkeypatch.setattr(plt, "close", grids.append)
    description = described(file)
    png.draw(description, tmp_path / "f.png")
    monkeypatch.undo()
    figures = [figure for figure in description.figures if figure.png]
    axes = [axis for axis in grids[0].axes if axis.get_visible()]
    assert len(axes) == len(figures) > 1
    for axis, figure in zip(axes, figures, strict=True):
        assert axis.get_title(loc="left").replace("\n", " ") == figure.title
        drawn = {line["name"]: line["y"] for line in interactive.plot(figure).traces if line.get("name")}
        lines = [
            line.get_ydata() for line in axis.lines if line.get_linestyle() != "None" and len(line.get_ydata()) > 0
        ]
        shown = [curve for curve in figure.curves if curve.shown]
        for curve in shown:
            assert drawn[curve.name] == curve.y
            assert any(np.array_equal(np.array(curve.y, float), line, equal_nan=True) for line in lines), curve.name
    plt.close("all")


def test_a_wide_table_is_set_in_pieces_that_repeat_its_keys(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    heads = ["group", "name", "first long head", "second", "third"]
    rows = [[group, name, *(f"{i}.123456789012" for i in range(3))] for group in ("a", "b") for name in ("x", "y")]
    terminal.show_table(Table("what", heads, rows, keys=2))
    text = capsys.readouterr().out
    assert text.count("name") == 2 and "what, by group" in text
    assert text.count("0.123456789012") == text.count("2.123456789012") == 4


@pytest.mark.parametrize("width", [40, 45, 46, 60, 80])
def test_long_heads_break_no_number_and_leave_no_line_too_long(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    heads = ["anchors", "accuracy, mean of the last rounds ± std over 2 seeds", "minus none, paired by seed", "kB up"]
    table = Table(
        "a caption that is longer than forty columns are", heads, [["pfn", "0.1850 ± 0.0438", "-0.0500 ± 0.0141", "7"]]
    )
    terminal.show_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert all(any(cell in line for line in lines) for cell in table.rows[0])
    together = any(all(cell in line for cell in table.rows[0]) for line in lines)
    assert together == (width >= 46)  # where all four columns fit, they stand side by side


def test_what_groups_the_rows_of_a_piece_is_not_broken(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    rows = [
        [kind, ratio, "0.6743 ± 0.0043", "+0.0250 ± 0.0044"]
        for kind in ("fine-tuning, seen tasks", "0.5")
        for ratio in "01"
    ]
    terminal.show_table(Table("scores", ["score", "ratio", "accuracy", "gain"], rows, keys=2))
    lines = capsys.readouterr().out.splitlines()
    assert "fine-tuning, seen tasks" in lines and "score 0.5" in lines


def test_dots_and_contours_say_the_same_in_both_pictures():
    from matplotlib import pyplot as plt

    dots = Dots(
        title="t",
        alt="a",
        dots=[Dot("mean", 0.5, 0.1, [0.4, 0.6]), Dot("soup", 0.7)],
        what="accuracy",
        singles="models",
    )
    rings, means = interactive.plot(dots).traces
    axis = plt.subplots()[1]
    png.picture(axis, dots)
    assert means["x"] == [0.5, 0.7] and rings["x"] == list(axis.lines[0].get_xdata()) == [0.4, 0.6]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["mean  0.5000", "soup  0.7000"]
    assert dots.table().rows == [["mean", "0.5000 ± 0.1000"], ["soup", "0.7000"]]
    values = [[1.0, 2.0], [3.0, None]]
    plane = Contours(title="t", alt="a", x=[0.0, 1.0], y=[0.0, 1.0], values=values, points=[Point("p", 0.5, 0.5, 1.5)],
                     measure="loss")  # fmt: skip
    axis = plt.subplots()[1]
    png.picture(axis, plane)
    assert interactive.plot(plane).traces[0]["customdata"] == values
    assert [line.get_label() for line in axis.lines] == ["p (loss 1.5)"]
    matrix = Matrix(title="t", alt="a", names=["0", "1"], values={(0, 1): 0.25}, what="barrier")
    axis = plt.subplots()[1]
    png.picture(axis, matrix)
    assert [text.get_text() for text in axis.texts] == ["0.250"] * 2
    plt.close("all")


def test_curves_that_are_not_shown_are_on_the_page_alone():
    from matplotlib import pyplot as plt

    curves = [Curve.of("a", [0, 1], [[0.5, 0.1], [0.6, None]]), Curve("b", [0, 1], [0.1, None], shown=False)]
    figure = Curves(title="t", alt="a", curves=curves, xaxis="epoch", yaxis="loss")
    axis = plt.subplots()[1]
    png.picture(axis, figure)
    plt.close("all")
    assert [line.get_label() for line in axis.lines] == ["a"]
    assert [(key.name, key.shown) for key in interactive.plot(figure).legend] == [("a", True), ("b", False)]
    assert figure.table().rows == [["0", "0.5000 ± 0.1000", "0.1000"], ["1", "0.6000", "–"]]


def test_mean_and_spread_are_the_sample_statistics():
    values = [0.1, 0.4, 0.7]
    assert statistics.mean_std(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert statistics.mean_std([0.5]) == (0.5, None) and np.isnan(statistics.mean_std([0.5, None]).mean)
    assert statistics.finite_mean_std([0.5, None, float("inf")]) == (0.5, None)
    assert statistics.format_mean_std([0.95, 0.002], 3) == "0.950 ± 0.002"
    assert (
        statistics.format_mean_std([0.01, None], 2, sign=True) == "+0.01"
        and statistics.format_number(-0.00001) == "0.0000"
    )
    assert [statistics.format_number(value) for value in (None, 12345.6, 2e8)] == ["–", "12,346", "2.00e+08"]


def test_planes_on_one_scale_have_the_same_colors_in_both_pictures():
    from matplotlib import pyplot as plt

    points = [
        Point(name, x, y, 2.0) for name, x, y in (("a", 0.0, 0.0), ("b", 1.0, 0.0), ("c", 0.0, 1.0), ("soup", 0.3, 0.3))
    ]
    planes = [Contours(title="t", alt="a", x=[0.0, 1.0], y=[0.0, 1.0], values=values, points=points, measure="loss",
                       paths=[(0, 1)], scale=(1.0, 100.0)) for values in ([[1.0, 2.0], [3.0, 4.0]], [[50.0, 60.0], [70.0, 100.0]])]  # fmt: skip
    levels = []
    for plane in planes:
        axis = plt.subplots()[1]
        levels.append(png.contours(axis, plane).levels)
        assert axis.lines[0].get_xdata().tolist() == [0.0, 1.0] and len(axis.lines) == 5
        trace, line, marks = interactive.plot(plane).traces
        assert (trace["zmin"], trace["zmax"]) == (0.0, 2.0) and line["x"] == [0.0, 1.0]
        assert marks["marker"]["symbol"][-1] == "star"
    assert levels[0].tolist() == levels[1].tolist() and levels[0][-1] == pytest.approx(100)
    plt.close("all")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("-0.5 ± 0.1", "−0.5 ± 0.1"), ("0-1", "0-1"), ("1e-05", "1e-05"), ("(-2)", "(−2)"), ("a-1", "a-1")],
)
def test_negative_numbers_have_a_sign_for_minus_on_the_page(text, shown):
    assert page.minus(text) == shown


def test_models_that_diverged_are_marked_where_they_did():
    from matplotlib import pyplot as plt

    lines = [
        {"step": i, "epoch": i, "loss": 1.0 / (i + 1), "diverged": bad}
        for i, bad in enumerate(([], [2], [2, 0, 1], [2, 0, 1]))
    ]
    figure = logs.describe(lines).figures[0]
    assert figure.marks == [(2, "model 2 diverged"), (3, "models 0, 1 diverged")] and "model 2 diverged" in figure.alt
    drawn = interactive.plot(figure).layout
    assert [shape["x0"] for shape in drawn["shapes"]] == [2, 3] and [note["y"] for note in drawn["annotations"]] == [
        1,
        1,
    ]
    axis = plt.subplots()[1]
    png.picture(axis, figure)
    assert [text.get_text().strip() for text in axis.texts] == ["model 2 diverged", "models 0, 1 diverged"]
    plt.close("all")
    assert logs.describe(lines[:1]).figures[0].marks == []


def test_provenance_says_bytes_in_the_unit_that_suits_them():
    found = dict(page.flat({"peak_bytes": 436_944_896, "predicted_bytes_per_model": {"kept": 13_338}, "waves": 1}))
    assert found == {"peak memory": "437 MB", "predicted memory per model kept": "13.3 kB", "waves": "1"}

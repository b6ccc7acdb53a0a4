"""The committed results are what the code computes, the pages quote them, and figure and table need nothing but the file."""

import json
from pathlib import Path

import pytest

from tests.figures import assert_shows_data
from tests.parameters import slow_but
from tna_jax.io.json_files import to_json
from train import figure3, theorem

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = {"theorem": theorem, "figure3": figure3}


def committed(name: str) -> dict:
    return json.loads((ROOT / "train" / "results" / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "experiment"), slow_but(list(EXPERIMENTS.items())[-1:], EXPERIMENTS.items()))
def test_figure_and_table_are_made_from_the_file_alone(name, experiment, tmp_path, capsys, figures):
    result = committed(name)
    experiment.figure(result, tmp_path / "figure.png")
    (figure,) = figures
    assert_shows_data(figure)
    experiment.table(result)
    assert "mean ± std" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_cell_of_the_theorem_is_computed_again():
    result = committed("theorem")
    [row] = [row for row in theorem.select(result, h=4) if row["seed"] == 2]
    again = to_json(theorem.cell(result["base"] | {"h": 4}, 2, result["draws"]))
    assert again.keys() == row.keys()
    for column in ("rms", "bound", "quantile", "exact_rms_middle"):
        assert again[column] == pytest.approx(row[column], rel=1e-4)
    assert theorem.cell(result["base"] | {"h": 4}, 3, result["draws"])["rms"].tolist() != again["rms"]  # control


def test_cells_of_figure_3_are_computed_again_and_the_summary_is_theirs():
    result = committed("figure3")
    for kind in figure3.KINDS:
        [row] = figure3.select(result["rows"], kind=kind, h=3, ratio=0.2, seed=1)
        assert to_json(figure3.cell(kind, 3, 0.2, 1, result["masks"])) == row
    assert to_json(figure3.summary(result["rows"])) == pytest.approx(result["summary"])


def test_the_pages_quote_the_results():
    page, found = (ROOT / "docs" / "theorem.md").read_text(), committed("theorem")["summary"]
    for name, digits in (("slope_h", 3), ("slope_d", 3), ("slope_free_u_v_free", 3), ("slope_free_u_v_anchored", 3),
                         ("rms_v_anchored_over_free", 3), ("measured_over_exact", 3), ("bound_over_quantile", 2)):  # fmt: skip
        assert f"| {found[name]['mean']:.{digits}f} ± {found[name]['std']:.{digits}f} |" in page, name
    assert f"| {found['largest_share_above']:.4f} |" in page
    page, rows = (ROOT / "docs" / "symmetries.md").read_text(), committed("figure3")["rows"]
    for ratio in (0.1, 0.2, 0.4, 0.8):
        cells = [figure3.over_seeds(rows, kind=kind, h=6, ratio=ratio) for kind in ("different values", "one value")]
        line = " | ".join("{:.2f} ± {:.2f} | {:.2f}".format(*values) for values in cells)
        assert f"| {ratio:g} | {line} |" in page

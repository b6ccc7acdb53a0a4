"""Results files of earlier versions are still described: those of `tna fuse` without paths, those of `tna rebasin` without kinds of groups."""

import json
from pathlib import Path

import pytest

from tna_jax.programs.reports import kinds

FOLDER = Path(__file__).parent / "earlier"


def described(name: str):
    file = FOLDER / f"{name}.json"
    contents = json.loads(file.read_text())
    return contents, kinds.describe(file, contents, "test")


def test_an_earlier_fuse_json_has_its_table_and_both_matrices():
    contents, description = described("fuse")
    assert "alphas" not in contents and "accuracy_path" not in contents["pairs"][0]
    assert [table.caption for table in description.tables] == ["accuracy and loss of each fusion"]
    titles = [figure.title for figure in description.figures]
    assert titles[2:] == ["Accuracy barrier of each pair", "Loss barrier of each pair"]
    values = {tuple(row["pair"]): row["loss_barrier"] for row in contents["pairs"] if row["split"] == "test"}
    assert description.figures[3].values == pytest.approx(values)


def test_an_earlier_rebasin_json_has_loss_columns_from_its_paths():
    contents, description = described("rebasin")
    assert "loss_ends" not in contents["rows"][0]
    table = description.tables[0]
    assert table.heads[1:] == [
        f"{name}{part}" for name in ("accuracy", "loss") for part in (", ends", ", midpoint", " barrier")
    ]
    paths = [row["loss_path"] for row in contents["rows"] if (row["kind"], row["split"]) == ("unmatched", "test")]
    ends, middle = (sum(path[0] + path[-1] for path in paths) / 4, sum(path[1] for path in paths) / 2)
    assert table.rows[0][4].startswith(f"{ends:.4f} ±") and table.rows[0][5].startswith(f"{middle:.4f} ±")

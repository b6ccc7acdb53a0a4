"""Notebooks: every .ipynb is its .py with at most one small picture; each runs on the CPU in minutes and draws its figures."""

import ast
import base64
import io
import json
import subprocess
import sys
import time
import tomllib

import pytest
from PIL import Image

from notebooks import __main__ as main
from notebooks import draw
from notebooks.__main__ import PICTURES, SOURCES, notebook

FIGURES = {"1": 1, "2": 1, "3": 1, "4": 1, "5": 2, "6": 0, "7": 1, "8": 1, "9": 0, "10": 1}
"""How many pictures each shows."""


def names(sources):
    return [source.stem for source in sources]


OFFLINE = ("load_digits", "load_diabetes", "pydoc_data.topics")
"""Data that is installed with Python or scikit-learn."""


def test_every_notebook_is_counted():
    assert [name.split("_")[0] for name in names(SOURCES)] == list(FIGURES)


@pytest.mark.parametrize("source", SOURCES, ids=names(SOURCES))
def test_the_ipynb_is_in_step_with_its_source(source):
    committed = source.with_suffix(".ipynb").read_text()
    assert committed == notebook(source), "run make notebooks"
    cells = json.loads(committed)["cells"]
    assert all(cell.get("execution_count") is None for cell in cells)
    picture = PICTURES / f"{source.stem}.png"
    stored = [output for cell in cells for output in cell.get("outputs", [])]
    assert len(stored) == picture.exists() <= FIGURES[source.stem.split("_")[0]]
    for output in stored:
        assert base64.b64decode(output["data"]["image/png"]) == picture.read_bytes() and picture.stat().st_size < 40_000


def test_a_picture_is_that_of_the_last_figure_and_is_drawn_to_the_same_bytes(tmp_path, monkeypatch):
    from matplotlib import pyplot as plt

    source = tmp_path / "1_tiny.py"
    source.write_text(
        "# %%\nimport matplotlib.pyplot as plt\nplt.subplots(figsize=(1, 1))\n\n# %%\nfigure, axis = plt.subplots(figsize=(2, 1))\naxis.plot([0, 1])\nplt.show()\n"
    )
    monkeypatch.setattr(main, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(plt, "show", plt.show)  # restored afterward
    assert json.loads(notebook(source))["cells"][1]["outputs"] == []
    drawn = []
    for name in ("1_tiny", "again"):
        draw.draw(source, tmp_path / "pictures" / f"{name}.png")
        drawn.append((tmp_path / "pictures" / f"{name}.png").read_bytes())
    plt.close("all")
    assert drawn[0] == drawn[1]
    with Image.open(io.BytesIO(drawn[0])) as image:
        assert image.size[0] == 2 * image.size[1]  # the second figure
    first, last = json.loads(notebook(source))["cells"]
    assert first["outputs"] == [] and base64.b64decode(last["outputs"][0]["data"]["image/png"]) == drawn[0]


@pytest.mark.parametrize("source", SOURCES, ids=names(SOURCES))
def test_it_opens_in_colab_and_downloads_nothing(source):
    text = source.read_text()
    cells = json.loads(source.with_suffix(".ipynb").read_text())["cells"]
    project = tomllib.loads((source.parents[1] / "pyproject.toml").read_text())["project"]
    repository = project["urls"]["Repository"].removeprefix("https://github.com/")
    place = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{source.stem}.ipynb"
    assert f"colab-badge.svg)]({place})" in "".join(cells[0]["source"])
    assert f"@ git+https://github.com/{repository}" in "".join(cells[1]["source"])
    imported = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.startswith(("train", "fusion", "tna_jax.programs"))}
    assert any(data in text for data in OFFLINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", SOURCES, ids=names(SOURCES))
def test_it_runs_in_less_than_five_minutes(source, tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(source.parents[1]))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # as in a notebook
    file = tmp_path / "it.ipynb"
    file.write_text(notebook(source))
    started = time.monotonic()
    words = [
        sys.executable,
        "-c",
        "from nbclient.cli import main; main()",
        "--inplace",
        "--kernel_name=python3",
        "--timeout=600",
        str(file),
    ]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert time.monotonic() - started < 300
    executed = json.loads(file.read_text())
    shown = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == FIGURES[source.stem.split("_")[0]]
    assert not [output for output in shown if output.get("name") == "stderr"], shown

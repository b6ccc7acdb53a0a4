"""`python -m notebooks`: writes the .ipynb of every notebook from its .py, with its last picture as the only output.

The .py files (jupytext, percent format) are the sources: they diff, lint and merge like code. The .ipynb are committed beside them because
Colab and GitHub open nothing else; a test holds them in step. Cell ids follow from a cell's number, so that the same source gives the same bytes.
The pictures are in `pictures/`, drawn by `python -m notebooks.draw`.
"""

import base64
import json
from pathlib import Path

import jupytext

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]*.py"), key=lambda file: int(file.stem.split("_")[0]))

PICTURES = FOLDER / "pictures"
FIGURE = "plt.subplots("
"""What a cell that draws has."""


def draws(source: Path) -> bool:
    """Returns whether a notebook has a picture."""
    return FIGURE in source.read_text()


def notebook(source: Path) -> str:
    """Returns the .ipynb of a source."""
    document = jupytext.read(source)
    document.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    document.nbformat, document.nbformat_minor = 4, 5
    for number, cell in enumerate(document.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
    picture = PICTURES / f"{source.stem}.png"
    if picture.exists():
        cell = [cell for cell in document.cells if cell.cell_type == "code" and FIGURE in cell.source][-1]
        data = {"image/png": base64.b64encode(picture.read_bytes()).decode(), "text/plain": "<Figure>"}
        cell.outputs = [{"output_type": "display_data", "data": data, "metadata": {}}]
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Writes all."""
    for source in SOURCES:
        source.with_suffix(".ipynb").write_text(notebook(source))
        print(source.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()

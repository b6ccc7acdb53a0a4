"""`python -m notebooks`: writes the .ipynb of every notebook from its .py, without outputs.

The .py files (jupytext, percent format) are the sources: they diff, lint and merge like code. The .ipynb are committed beside them because
Colab and GitHub open nothing else; a test holds them in step. Cell ids follow from a cell's number, so that the same source gives the same bytes.
"""

import json
from pathlib import Path

import jupytext

FOLDER = Path(__file__).parent
SOURCES = sorted(FOLDER.glob("[0-9]*.py"), key=lambda file: int(file.stem.split("_")[0]))


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
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Writes all."""
    for source in SOURCES:
        source.with_suffix(".ipynb").write_text(notebook(source))
        print(source.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()

"""Long tables of the site's evidence are folded, others are not."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "hooks"))
folded = importlib.import_module("folded")


def page(name: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=name))


def table(rows: int) -> str:
    return f"<table><tr><th>a</th></tr>{'<tr><td>1</td></tr>' * rows}</table>"


def test_a_table_is_folded_where_it_is_long_and_evidence():
    html = f"<p>x</p>{table(20)}<p>y</p>{table(21)}"
    shown = folded.on_page_content(html, page("evidence.md"), None, None)
    assert (
        shown
        == f'<p>x</p>{table(20)}<p>y</p><details class="long"><summary>The table: 21 rows</summary>{table(21)}</details>'
    )
    assert folded.on_page_content(html, page("runs.md"), None, None) == html


def test_the_pages_are_there():
    assert all((Path(folded.__file__).parents[1] / name).is_file() for name in folded.PAGES)

"""Long tables are folded on the site: a line says how many rows there are, and opens them."""

import re

ROWS = 20
"""Tables with more are folded."""
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)


def on_page_content(html, page, config, files):
    """Folds the long tables of a page that is evidence; those of other pages are looked up, and stay open."""
    return TABLE.sub(lambda match: folded(match[0]), html) if page.file.src_uri in PAGES else html


PAGES = ("evidence.md", "record.md", "claims.md", "which-merge.md", "federated.md", "soups.md", "cold.md", "merging.md")


def folded(table: str) -> str:
    """Returns a table as it is, or, if it is long, as what a line opens."""
    rows = table.count("<tr>") + table.count("<tr ") - 1
    if rows <= ROWS:
        return table
    return f'<details class="long"><summary>The table: {rows} rows</summary>{table}</details>'

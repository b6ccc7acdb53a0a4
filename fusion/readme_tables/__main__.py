"""Writes every table anew: `python -m fusion.readme_tables`."""

from fusion.readme_tables.pages import PAGES, ROOT, rendered

if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(rendered((ROOT / page).read_text()))

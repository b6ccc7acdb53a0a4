"""The tables of README.md and of the pages in docs/, rendered from the committed results: `python -m fusion.readme_tables` writes them."""

from fusion.readme_tables.pages import PAGES, rendered

__all__ = ["PAGES", "rendered"]

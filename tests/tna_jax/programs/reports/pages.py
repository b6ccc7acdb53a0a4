"""Reads a report as a browser would, strictly: every tag is closed, every id is there once, every reference has its target."""

import html.parser
import json
from pathlib import Path

from tna_jax.programs.cli.main import main

LMC = Path(__file__).parents[4] / "train" / "results" / "digits_lmc.json"
"""A committed sweep."""
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """The elements of a page as (tag, attributes, text), tables as lists of rows, and what is wrong with it."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.source = source
        self.open: list[list] = []
        self.elements: list[tuple[str, dict, str]] = []
        self.tables: list[list[list[str]]] = []
        self.wrong: list[str] = []
        self.feed(source)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag, _, _ in self.open]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.wrong.append(f"<{tag}> has an attribute twice")
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in VOID:
            self.elements.append((tag, dict(attrs), ""))
        else:
            self.open.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1][0] if self.open else 'nothing'}")
            return
        name, attributes, text = self.open.pop()
        self.elements.append((name, attributes, text))
        if tag in ("td", "th"):
            self.tables[-1][-1].append(text.strip())
        elif self.open:
            self.open[-1][2] += text

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def all(self, tag: str, **attributes: str) -> list[tuple[str, dict, str]]:
        """The elements of a tag with these attributes (`class` as `class_`)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [e for e in self.elements if e[0] == tag and all(e[1].get(k) == v for k, v in wanted.items())]

    def charts(self) -> list[dict]:
        """What the figures draw, in their order."""
        return [json.loads(text) for _, _, text in self.all("script", class_="chart")]

    def faults(self) -> list[str]:
        """Everything that is not as HTML and a page without a network must be."""
        wrong = list(self.wrong)
        ids = [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]
        wrong += [f"the id {one} is there {ids.count(one)} times" for one in set(ids) if ids.count(one) > 1]
        for tag, attributes, _ in self.elements:
            for name in ("aria-labelledby", "for", "data-for", "data-figure"):
                if name in attributes and attributes[name] not in ids:
                    wrong.append(f"<{tag} {name}={attributes[name]}> names nothing")
            for name, value in attributes.items():
                if name in ("href", "src", "srcset", "action", "poster") and not value.startswith(("#", "data:,")):
                    wrong.append(f"<{tag} {name}={value}> is outside the page")
                if name == "href" and value.startswith("#") and value[1:] not in ids:
                    wrong.append(f"{value} leads nowhere")
                if name.startswith("on"):
                    wrong.append(f"<{tag} {name}> runs a script")
            if tag in ("iframe", "object", "embed", "img"):
                wrong.append(f"there is an <{tag}>")
        return wrong


def report(*runs: Path | str, out: str = "report.html", more: tuple[str, ...] = ()) -> Page:
    """Runs `tna report` and reads what it wrote."""
    assert main(["report", *map(str, runs), "-o", out, *more]) == 0
    return Page(Path(out).read_text())


def refused(capsys, *words: str) -> str:
    """Runs `tna report` with what it refuses, and returns the line it prints."""
    assert main(["report", *words]) == 2
    return capsys.readouterr().err.strip()


def results(folder: Path, name: str, value: dict) -> Path:
    """Writes a results file into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"provenance": {"commit": "c"}, **value}))
    return folder


def cells(page: Page, *first: str) -> list[str]:
    """The row of any table that begins so."""
    return next(row for table in page.tables for row in table if row[: len(first)] == list(first))

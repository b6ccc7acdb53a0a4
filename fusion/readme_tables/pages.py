"""Pages with tables, and the results that these are made of."""

import json
from pathlib import Path

from fusion.readme_tables import barriers, federations, finetuning, matching, merging, overview, records, speed
from fusion.readme_tables.kinds import Tables

ROOT = Path(__file__).resolve().parents[2]
RESULTS = (ROOT / "train" / "results", ROOT / "fusion" / "results", ROOT / "benchmarks" / "results")
MARK = "<!-- table:"
PAGES = (
    "README.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")) if MARK in file.read_text()),
)
TABLES: Tables = {}
for room in (overview, barriers, records, finetuning, federations, matching, merging, speed):
    TABLES |= room.TABLES


def committed(name: str) -> Path:
    """The results file of that name, whichever room holds it."""
    return next(folder / name for folder in RESULTS if (folder / name).is_file())


def rendered(text: str) -> str:
    """A page with every table made anew."""
    for name, (files, make) in TABLES.items():
        mark = f"{MARK}{name} -->"
        if mark in text:
            start = text.index(mark)
            end = text.index("<!-- end -->", start)
            results = [
                json.loads(committed(file).read_text()) for file in ((files,) if isinstance(files, str) else files)
            ]
            table = make(*results)
            text = f"{text[:start]}{mark}\n\n{table}\n\n{text[end:]}"
    return text

"""Writes the tables of README.md and of the pages in docs/ from the committed results: `python -m experiments.readme_tables`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import summary
from experiments.cells import find
from experiments.summary import markdown
from fusion.lmc_report import NAMES, present, select, spread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
MARK = "<!-- table:"
PAGES = (
    "README.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")) if MARK in file.read_text()),
)
COLUMNS = {"accuracy_ends": "accuracy, ends", "accuracy_midpoint": "midpoint", "accuracy_barrier": "accuracy barrier",
           "loss_barrier": "loss barrier"}  # fmt: skip


def sweep(result: dict[str, Any]) -> str:
    """The test set of an `lmc.json`: mean ± sample standard deviation over pairs."""
    rows = []
    for init in present(result, "init"):
        for method in present(result, "method"):
            for ratio in present(result, "ratio"):
                if ratio == 0 and method != present(result, "method")[0]:
                    continue
                chosen = select(result, init=init, method=method, ratio=ratio, split="test")
                cells = ["{:.3f} ± {:.3f}".format(*spread(chosen, column)) for column in COLUMNS]
                rows.append([init, NAMES[method] if ratio else "no anchors", f"{ratio:g}", *cells])
    return markdown(["initialisation", "method", "ratio", *COLUMNS.values()], rows)


def cells_of(line: dict[str, Any] | None) -> list[str]:
    """Number of pairs, and the measures of a line of a cell's summary."""
    if line is None:
        return ["0", *["diverged"] * len(COLUMNS)]
    measures = (line[column] for column in COLUMNS)
    return [str(line["n"]), *(f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}") for mean, std in measures)]


def by_case(result: dict[str, Any]) -> str:
    """Figures 2 and 5: every cell's summary."""
    rows = []
    for case in result["cells"].values():
        for line in case["summary"]:
            if line["ratio"] or line["method"] == "tna":
                name = NAMES[line["method"]] if line["ratio"] else "no anchors"
                found = line if line["n"] else None
                rows.append([case["title"], line["init"], name, f"{line['ratio']:g}", *cells_of(found)])
    return markdown(["data, network", "initialisation", "method", "ratio", "n", *COLUMNS.values()], rows)


def recipes(case: str) -> Callable[[dict[str, Any]], str]:
    """The anchors of a case, the best midpoint first."""

    def table(result: dict[str, Any]) -> str:
        found = result["cases"][case]["rows"]
        lines = {name: find(row) for name, row in found.items()}
        order = sorted(lines, key=lambda name: -(lines[name] or {"accuracy_midpoint": [0]})["accuracy_midpoint"][0])
        rows = [[found[name]["label"], *cells_of(lines[name])] for name in order]
        return markdown(["anchors", "n", *COLUMNS.values()], rows)

    return table


def depths(result: dict[str, Any]) -> str:
    """Midpoints by depth beside the numbers of others."""
    theirs = result["matched_after_training"]
    rows = []
    for case in result["cells"].values():
        for line in case["summary"] if case["recipe"] else ():
            matched = theirs["matched + REPAIR"][theirs["layers"].index(case["layers"])]
            found = [f"{line[column][0]:.4f} ± {line[column][1]:.4f}" for column in list(COLUMNS)[:3]]
            rows.append([str(case["layers"]), f"{line['ratio']:g}", str(line["n"]), *found, f"{matched:.4f}"])
    heads = ["layers", "ratio", "n", *list(COLUMNS.values())[:3], "matched + REPAIR (theirs, midpoint)"]
    return markdown(heads, rows)


def rivals(result: dict[str, Any]) -> str:
    """A row for each method."""
    rows = [
        [line["population"], line["kind"], *cells_of(line)[:4], f"{line['sweeps'][0]:.1f}" if "sweeps" in line else "-"]
        for line in result["lines"]
    ]
    return markdown(["networks", "after training", "n", *list(COLUMNS.values())[:3], "sweeps"], rows)


def populations(result: dict[str, Any]) -> str:
    """Averages of N networks."""
    rows = []
    for line in result["lines"]:
        values = [
            f"{mean:.4f}" + ("" if std is None else f" ± {std:.4f}") for mean, std in (line["fused"], line["members"])
        ]
        rows.append([line["case"], line["method"], str(line["models"]), str(line["n"]), *values])
    return markdown(["data, network", "networks", "N", "groups", "accuracy of their average", "members"], rows)


TABLES: dict[str, tuple[str | tuple[str, ...], Callable[..., str]]] = {
    "programs": ((), summary.programs),
    "brief": (("digits_lmc.json", "figure2.json", "figure5.json", "anchors.json"), summary.brief),
    "claims": (
        (
            "figure2.json",
            "figure4.json",
            "figure5.json",
            "anchors.json",
            "multi_fusion.json",
            "rivals.json",
            "theorem.json",
        ),
        summary.claims,
    ),
    "digits": ("digits_lmc.json", sweep),
    "figure2": ("figure2.json", by_case),
    "figure5": ("figure5.json", by_case),
    "anchors_mlp": ("anchors.json", recipes("mlp")),
    "anchors_cnn": ("anchors.json", recipes("cnn")),
    "depth": ("depth.json", depths),
    "rivals": ("rivals.json", rivals),
    "multi_fusion": ("multi_fusion.json", populations),
}
"""By the name in the page: the result or results, and what makes the table of them."""


def rendered(text: str) -> str:
    """A page with every table made anew."""
    for name, (files, make) in TABLES.items():
        mark = f"{MARK}{name} -->"
        if mark in text:
            start = text.index(mark)
            end = text.index("<!-- end -->", start)
            results = [
                json.loads((RESULTS / file).read_text()) for file in ((files,) if isinstance(files, str) else files)
            ]
            table = make(*results)
            text = f"{text[:start]}{mark}\n\n{table}\n\n{text[end:]}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(rendered((ROOT / page).read_text()))

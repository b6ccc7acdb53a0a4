"""Writes the tables of the README and of docs/ from the committed results: `python -m experiments.readme_tables`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import federated
from experiments.cells import find
from fusion.lmc_report import NAMES, present, select, spread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGES = ("README.md", "docs/evidence.md", "docs/federated.md")
COLUMNS = {"accuracy_ends": "accuracy, ends", "accuracy_midpoint": "midpoint", "accuracy_barrier": "accuracy barrier",
           "loss_barrier": "loss barrier"}  # fmt: skip


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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


def compositions(alpha: float) -> Callable[[dict[str, Any]], str]:
    """Algorithms and servers with and without anchors at one heterogeneity."""
    return lambda result: markdown(federated.HEADS, federated.composition(result, alpha))


def federated_ratios(result: dict[str, Any]) -> str:
    """FedAvg by mask ratio."""
    return markdown(["ratio", "FedPFN", "FedPNU"], federated.ablation(result))


def federated_readings(result: dict[str, Any]) -> str:
    """The two readings of FedPNU."""
    return markdown(federated.READING_HEADS, federated.readings(result))


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "digits": ("digits_lmc.json", sweep),
    "figure2": ("figure2.json", by_case),
    "figure5": ("figure5.json", by_case),
    "anchors_mlp": ("anchors.json", recipes("mlp")),
    "anchors_cnn": ("anchors.json", recipes("cnn")),
    "depth": ("depth.json", depths),
    "rivals": ("rivals.json", rivals),
    "multi_fusion": ("multi_fusion.json", populations),
    "federated_0.1": ("federated.json", compositions(0.1)),
    "federated_0.5": ("federated.json", compositions(0.5)),
    "federated_ratios": ("federated.json", federated_ratios),
    "federated_faults": ("federated.json", lambda result: markdown(federated.FAULT_HEADS, federated.faults(result))),
    "federated_readings": ("federated.json", federated_readings),
}
"""By the name in the page: the result, and what makes the table of it."""


def rendered(text: str) -> str:
    """A page with every table made anew."""
    for name, (file, make) in TABLES.items():
        mark = f"<!-- table:{name} -->"
        if mark in text:
            start = text.index(mark)
            end = text.index("<!-- end -->", start)
            table = make(json.loads((RESULTS / file).read_text()))
            text = f"{text[:start]}{mark}\n\n{table}\n\n{text[end:]}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(rendered((ROOT / page).read_text()))

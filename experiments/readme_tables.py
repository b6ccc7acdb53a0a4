"""Writes the tables of README.md from the committed results: `python -m experiments.readme_tables`."""

import json
from pathlib import Path

from fusion.lmc_report import NAMES, present, select, spread

ROOT = Path(__file__).resolve().parents[1]
TABLES = {"digits": "digits_lmc.json", "fashion": "fashion_mnist_lmc.json", "cnn": "cifar10_cnn_lmc.json"}
COLUMNS = ("accuracy_ends", "accuracy_midpoint", "accuracy_barrier", "loss_barrier")


def markdown(result: dict) -> str:
    """The test-set table of an `lmc.json`: mean ± sample standard deviation over pairs."""
    lines = ["| initialisation | method | ratio | accuracy, ends | midpoint | accuracy barrier | loss barrier |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for init in present(result, "init"):
        for method in present(result, "method"):
            for ratio in present(result, "ratio"):
                if ratio == 0 and method != present(result, "method")[0]:
                    continue
                rows = select(result, init=init, method=method, ratio=ratio, split="test")
                cells = ["{:.3f} ± {:.3f}".format(*spread(rows, column)) for column in COLUMNS]
                lines.append(
                    f"| {init} | {NAMES[method] if ratio else 'no anchors'} | {ratio:g} | {' | '.join(cells)} |"
                )
    return "\n".join(lines)


def rendered(text: str) -> str:
    """README.md with every table made anew."""
    for name, file in TABLES.items():
        result = json.loads((ROOT / "experiments" / "results" / file).read_text())
        start = text.index(f"<!-- table:{name} -->")
        end = text.index("<!-- end -->", start)
        text = f"{text[:start]}<!-- table:{name} -->\n\n{markdown(result)}\n\n{text[end:]}"
    return text


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(rendered(readme.read_text()))

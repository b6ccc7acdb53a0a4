"""Tables of trained networks, their paths and averages: `train/results`, and the rivals and averages of many."""

from collections.abc import Callable
from typing import Any

from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown
from tna_jax.programs.lmc.report import NAMES, pairs_mean_std, present, select
from tna_jax.programs.reports.statistics import format_mean_std
from train import curves, figure5
from train.cells import find
from train.cells import measured as format_measure

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
                cells = [format_mean_std(pairs_mean_std(chosen, column), 3) for column in COLUMNS]
                rows.append([init, NAMES[method] if ratio else "no anchors", f"{ratio:g}", *cells])
    return markdown(["initialization", "method", "ratio", *COLUMNS.values()], rows)


def curved(result: dict[str, Any]) -> str:
    """Straight and curved paths of `python -m train curves`."""
    return markdown(curves.HEADS, curves.lines(result))


def cells_of(line: dict[str, Any] | None) -> list[str]:
    """Number of pairs, and the measures of a line of a cell's summary."""
    if line is None:
        return ["0", *["diverged"] * len(COLUMNS)]
    return [str(line["n"]), *(format_mean_std(line[column], 3) for column in COLUMNS)]


def by_case(result: dict[str, Any], ratios: tuple[float, ...] = (), methods: tuple[str, ...] = ()) -> str:
    """Figures 2 and 5: every cell's summary, or what it says of these ratios and methods."""
    rows = []
    for case in result["cells"].values():
        for line in case["summary"]:
            wanted = (not ratios or line["ratio"] in ratios) and (not methods or line["method"] in methods)
            if wanted and (line["ratio"] or line["method"] == "tna"):
                name = NAMES[line["method"]] if line["ratio"] else "no anchors"
                found = line if line["n"] else None
                rows.append([case["title"], line["init"], name, f"{line['ratio']:g}", *cells_of(found)])
    return markdown(["data, network", "initialization", "method", "ratio", "n", *COLUMNS.values()], rows)


def sizes(result: dict[str, Any]) -> str:
    """Figure 4: barriers and end accuracies by size."""
    rows = []
    for case in result["cells"].values():
        size = f"{case['config']['depth']}x{case['config']['width']}"
        for init in ("same", "different"):
            lines = [find(case, init=init, ratio=ratio, method="tna") for ratio in (0.0, 0.4, 0.8)]
            cells = [format_measure(line, column) for column in ("accuracy_barrier", "accuracy_ends") for line in lines]
            rows.append([size, init, *cells])
    heads = [f"{what}, {ratio:g}" for what in ("barrier", "ends") for ratio in (0, 0.4, 0.8)]
    return markdown(["MLP", "initialization", *heads], rows)


def earlier(*results: dict[str, Any]) -> str:
    """First runs, test set: barriers and end accuracies."""
    rows = []
    for result in results:
        config = result["config"]
        name = f"{config['dataset']}, {config['model']}, {config['train_examples']:,} images, {config['epochs']} epochs"
        for init in present(result, "init"):
            cells, n = [], 0
            for column in ("accuracy_barrier", "accuracy_ends"):
                for ratio in (0.0, 0.4, 0.8):
                    chosen = select(result, init=init, method="tna", ratio=ratio, split="test")
                    cells.append(format_mean_std(pairs_mean_std(chosen, column), 3) if chosen else "–")
                    n = max(n, len(chosen))
            rows.append([name, init, str(n), *cells])
    heads = [f"{what}, {ratio:g}" for what in ("barrier", "ends") for ratio in (0, 0.4, 0.8)]
    return markdown(["data, network", "initialization", "n", *heads], rows)


def recipes(case: str) -> Callable[[dict[str, Any]], str]:
    """The anchors of a case, the best midpoint first; those from N(0, scale^2) have a recipe of their own, see `train.record`."""

    def table(result: dict[str, Any]) -> str:
        found = {name: row for name, row in result["cases"][case]["rows"].items() if row["group"] != "N(0, scale²)"}
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
            found = [format_mean_std(line[column]) for column in list(COLUMNS)[:3]]
            rows.append([str(case["layers"]), f"{line['ratio']:g}", str(line["n"]), *found, f"{matched:.4f}"])
    heads = ["layers", "ratio", "n", *list(COLUMNS.values())[:3], "matched + REPAIR (theirs, midpoint)"]
    return markdown(heads, rows)


def moves(line: dict[str, Any]) -> list[str]:
    """What matching did."""
    if "sweeps" not in line:
        return ["-", "-"]
    return [format_mean_std(line["sweeps"], 1), format_mean_std(line["moved"], 0)]


def rivals(result: dict[str, Any]) -> str:
    """A row for each method."""
    rows = [[line["population"], line["kind"], *cells_of(line)[:4], *moves(line)] for line in result["lines"]]
    heads = ["networks", "after training", "n", *list(COLUMNS.values())[:3], "sweeps", "units moved"]
    return markdown(heads, rows)


def populations(result: dict[str, Any]) -> str:
    """Averages of N networks."""
    rows = []
    for line in result["lines"]:
        values = [format_mean_std(line[key]) for key in ("fused", "members")]
        rows.append([line["case"], line["method"], str(line["models"]), str(line["n"]), *values])
    return markdown(["data, network", "networks", "N", "groups", "accuracy of their average", "members"], rows)


TABLES: Tables = {
    "digits": ("digits_lmc.json", sweep),
    "curves": ("curves.json", curved),
    "figure2": ("figure2.json", by_case),
    "figure4": ("figure4.json", sizes),
    "earlier": (("fashion_mnist_lmc.json", "cifar10_cnn_lmc.json", "cifar10_resnet20_lmc.json"), earlier),
    "figure5": ("figure5.json", lambda result: by_case(result, figure5.RATIOS, ("tna",))),
    "anchors_mlp": ("anchors.json", recipes("mlp")),
    "anchors_cnn": ("anchors.json", recipes("cnn")),
    "depth": ("depth.json", depths),
    "rivals": ("rivals.json", rivals),
    "multi_fusion": ("multi_fusion.json", populations),
}
"""By the name in the page: the results, and what makes the table of them."""

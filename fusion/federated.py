"""Federated learning: every algorithm and server without anchors, with FedPFN and with FedPNU, under heterogeneous clients.

Shows: where anchors help an algorithm and where they do not (the composition table), how the mask ratio matters for FedPFN and
  FedPNU, the two readings of FedPNU, within a client's round and across rounds, and what faulty clients cost.
Hardware: two CPU cores, about two hours, of which the CNN takes one. `--full` is the size of the first author's settings (all of Fashion-MNIST with the CNN and
  CIFAR-10 with the ResNet20 with BatchNorm, full and half participation, 200 rounds) for a GPU; it has not been run.
Command: `python -m fusion federated`
Expected: FedAvg at Dirichlet 0.1, where clients differ most: FedPFN above FedAvg by more than the seeds' spread of the paired
  difference, less or nothing at Dirichlet 0.5. Score: test accuracy, mean of the last 5 rounds; mean and sample standard
  deviation over 3 seeds (tables of FedAvg on Fashion-MNIST alone: 5), each with its own partition, initial values and masks;
  differences are paired by seed.
Data: Fashion-MNIST, 3,000 training and 3,000 test examples, MLP 2x100, 20 clients, 20 rounds of 3 passes, batch 16, SGD 0.05 x
  0.99 a round, momentum 0.9, weight decay 5e-4; all clients in each round, and half of them. CIFAR-10 with the CNN likewise:
  FedAvg in all four, four other rows with all clients at Dirichlet 0.1.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, format_mean_std, mean_std, mean_std_columns
from tna_jax.programs.reports.terminal import show_table
from train.cells import federated
from train.plots import page

SHARED: dict[str, Any] = {
    "dataset": "fashion_mnist", "train_examples": 3000, "test_examples": 3000, "model": "mlp", "depth": 2, "width": 100,
    "clients": 20, "rounds": 20, "epochs": 3, "batch_size": 16, "learning_rate": 0.05, "seeds": 3,
}  # fmt: skip
PLAIN: dict[str, Any] = {"momentum": 0.0, "learning_rate": 0.1}
"""FedDyn and SCAFFOLD have no local momentum in their papers; with 0.9 both diverge here without anchors (FedDyn) or with and
without (SCAFFOLD)."""
ROWS: dict[str, dict[str, Any]] = {
    "FedAvg": {}, "FedProx": {"algorithm": "fedprox"}, "FedDyn": {"algorithm": "feddyn", **PLAIN},
    "SCAFFOLD": {"algorithm": "scaffold", **PLAIN}, "FedNova": {"algorithm": "fednova"}, "MOON": {"algorithm": "moon"},
    "FedLC": {"algorithm": "fedlc"}, "FedSAM": {"algorithm": "fedsam"}, "FedAvgM": {"server": "fedavgm"},
    "FedAdam": {"server": "fedadam"}, "FedYogi": {"server": "fedyogi"}, "FedAdagrad": {"server": "fedadagrad"},
    "FedDF": {"server": "feddf", "proxy_examples": 300},
}  # fmt: skip
COLORS = {"none": "#8a8f98", "pfn": "#1b6ca8", "pnu": "#c7522a", "pnu-rounds": "#3c8d53"}
MARKS = {"none": "o", "pfn": "s", "pnu": "^", "pnu-rounds": "v"}
FAULTY = "FedAvg, faults"
FAULTS: dict[str, Any] = {"drop": 0.3, "nan_clients": (3,), "wrong_shape_clients": (5,)}
"""Three in ten clients drop out at random, one sends NaN and one a wrong shape in each round."""
COLUMNS = ("none", "pfn", "pnu")
NAMES = {"none": "no anchors", "pfn": "FedPFN", "pnu": "FedPNU", "pnu-rounds": "FedPNU across rounds"}
ALPHAS = (0.1, 0.5)
SEEDS = 5
"""Of FedAvg in the first case."""
RATIOS = (0.2, 0.4, 0.6, 0.8)
CNN: dict[str, Any] = {"model": "cnn", "depth": None, "width": None}
CNN_ROWS = ("FedAvg", "FedProx", "FedDyn", "SCAFFOLD", "FedAvgM")
"""Ten minutes each here: proximal, variates, server momentum."""


class Case(NamedTuple):
    """A network on a data set."""

    options: dict[str, Any]
    rows: dict[tuple[float, float], tuple[str, ...]]
    """By share of the clients that the server asks in a round, and Dirichlet parameter."""


def everywhere() -> dict[tuple[float, float], tuple[str, ...]]:
    """All rows, at every participation and heterogeneity."""
    return {(share, alpha): tuple(ROWS) for share in (1.0, 0.5) for alpha in ALPHAS}


CASES: dict[str, Case] = {
    "": Case(SHARED, everywhere()),
    "cifar10_cnn": Case(
        {**SHARED, **CNN, "dataset": "cifar10"},
        {(1.0, 0.1): CNN_ROWS, (1.0, 0.5): ("FedAvg",), (0.5, 0.1): ("FedAvg",), (0.5, 0.5): ("FedAvg",)},
    ),
}
"""The first also has the ratios and the faults."""
TITLES = {"": "Fashion-MNIST MLP", "cifar10_cnn": "CIFAR-10 CNN"}
FULL_SIZE: dict[str, Any] = {
    "train_examples": None,
    "test_examples": None,
    "rounds": 200,
    "batch_size": 64,
    "epochs": 2,
}
RESNET: dict[str, Any] = {"dataset": "cifar10", "model": "resnet20_option_a", "norm_statistics": "shared", "depth": None,
                          "width": None}  # fmt: skip
FULL: dict[str, Case] = {
    "fashion_mnist_cnn": Case({**SHARED, **CNN, **FULL_SIZE}, everywhere()),
    "cifar10_resnet20": Case({**SHARED, **RESNET, **FULL_SIZE}, everywhere()),
}


def run(full: bool = False) -> dict[str, Any]:
    """Every cell is a run of `tna federate`: all its mask schedules and seeds; what is finished is read."""
    cases, cells = FULL if full else CASES, []
    first = next(iter(cases))

    def add(
        case: str, row: str, options: dict[str, Any], suffix: str = "", participation: float = 1.0, ratio: float = 0.4
    ) -> None:
        name = "_".join(filter(None, (case, row, f"{options['alpha']:g}", suffix)))
        values = {**options, "participation": participation, "ratio": ratio}
        runs = federated("federated" + ("_full" if full else ""), name, values)
        cells.append({"row": row if suffix != "faults" else FAULTY, "alpha": options["alpha"], "case": case,
                      "participation": participation, "ratio": ratio, **runs})  # fmt: skip

    for case, (shared, wanted) in cases.items():
        for (share, alpha), rows in wanted.items():
            for row in rows:
                options = {**shared, **ROWS[row], "anchors": COLUMNS, "alpha": alpha}
                if row == "FedAvg" and case == first:
                    options |= {"anchors": (*COLUMNS, "pnu-rounds"), "seeds": SEEDS}
                add(case, row, options, "" if share == 1 else f"{share:g}", share)
        if case == first:
            for ratio in RATIOS:
                if ratio != 0.4:
                    options = {**shared, "alpha": ALPHAS[0], "anchors": COLUMNS[1:], "seeds": SEEDS}
                    add(case, "FedAvg", options, f"ratio_{ratio:g}", ratio=ratio)
            options = {**shared, "alpha": ALPHAS[1], "anchors": COLUMNS[:2], "seeds": SEEDS, **FAULTS}
            add(case, "FedAvg", options, "faults")
    return {"cells": cells}


def part(result: dict[str, Any], case: str | None = None, participation: float = 1.0) -> dict[str, Any]:
    """The cells of one case (the first, if none is named) at one participation."""
    case = result["cells"][0]["case"] if case is None else case
    return {"cells": [c for c in result["cells"] if (c["case"], c["participation"]) == (case, participation)]}


def scores(result: dict[str, Any], kind: str, **wanted: Any) -> np.ndarray:
    """(seeds,) the scores of a mask schedule in the cell with the values of `wanted`; NaN if there is no such cell."""
    for cell in result["cells"]:
        if all(cell[key] == value for key, value in wanted.items()):
            values = [run["score"] for run in cell["runs"] if run["anchors"] == kind]
            if values:
                return np.array([np.nan if value is None else value for value in values])
    return np.array([np.nan])


def format_scores(values: np.ndarray, sign: bool = False) -> str:
    """Mean ± sample standard deviation of one value a seed."""
    return format_mean_std(mean_std(values), 3, sign)


def composition(result: dict[str, Any], alpha: float) -> list[list[str]]:
    """The rows of the composition table, over the seeds that all rows have: scores by mask schedule, and what anchors add."""
    rows = []
    for row in dict.fromkeys(cell["row"] for cell in result["cells"]):
        found = {kind: scores(result, kind, row=row, alpha=alpha, ratio=0.4)[: SHARED["seeds"]] for kind in COLUMNS}
        if row == FAULTY or np.isnan(found["none"]).all():
            continue
        gains = [format_scores(_gain(result, kind, row, alpha), sign=True) for kind in COLUMNS[1:]]
        rows.append([row, *(format_scores(found[kind]) for kind in COLUMNS), *gains])
    return rows


HEADS = ["algorithm", "no anchors", "FedPFN", "FedPNU", "FedPFN - none", "FedPNU - none"]


def ablation(result: dict[str, Any]) -> list[list[str]]:
    """FedAvg at Dirichlet 0.1 by mask ratio."""
    rows = [["0", *[format_scores(scores(result, "none", row="FedAvg", alpha=ALPHAS[0], ratio=0.4))] * 2]]
    for ratio in RATIOS:
        found = [scores(result, kind, row="FedAvg", alpha=ALPHAS[0], ratio=ratio) for kind in ("pfn", "pnu")]
        rows.append([f"{ratio:g}", *map(format_scores, found)])
    return rows


def readings(result: dict[str, Any]) -> list[list[str]]:
    """The two readings of FedPNU beside FedAvg and FedPFN, all seeds, each with its difference to FedAvg."""
    rows = []
    for kind, name in (NAMES | {"pnu": "FedPNU within a client's round"}).items():
        cells = []
        for alpha in ALPHAS:
            base, found = (scores(result, k, row="FedAvg", alpha=alpha, ratio=0.4) for k in ("none", kind))
            cells += [format_scores(found), "-" if kind == "none" else format_scores(found - base, sign=True)]
        rows.append([name, *cells])
    return rows


READING_HEADS = ["FedAvg with", *(word for alpha in ALPHAS for word in (f"Dirichlet {alpha:g}", "difference"))]


def faults(result: dict[str, Any]) -> list[list[str]]:
    """FedAvg at Dirichlet 0.5 without and with faults, and the difference, paired by seed."""
    rows = []
    for kind, name in (("none", "no anchors"), ("pfn", "FedPFN")):
        clean, faulty = (scores(result, kind, row=row, alpha=ALPHAS[1], ratio=0.4) for row in ("FedAvg", FAULTY))
        if not np.isnan(faulty).all():
            rows.append([name, format_scores(clean), format_scores(faulty), format_scores(faulty - clean, sign=True)])
    return rows


FAULT_HEADS = ["FedAvg", "all clients good", "30 % dropping, one NaN, one wrong shape", "difference"]


def table(result: dict[str, Any]) -> None:
    """Prints the composition tables of every case and participation, and of the first the ablation, faults and two readings."""
    for case, share in dict.fromkeys((cell["case"], cell["participation"]) for cell in result["cells"]):
        for alpha in ALPHAS:
            title = f"{TITLES.get(case, case)}, {share:.0%} of the clients a round, Dirichlet {alpha:g}, mask ratio 0.4"
            _print(f"{title}: accuracy of the last 5 rounds", HEADS, composition(part(result, case, share), alpha))
    result = part(result)
    _print("FedAvg at Dirichlet 0.1 by mask ratio", ["ratio", "FedPFN", "FedPNU"], ablation(result))
    _print("Faults, Dirichlet 0.5", FAULT_HEADS, faults(result))
    _print("Two readings of FedPNU", READING_HEADS, readings(result))


def _print(title: str, heads: list[str], rows: list[list[str]]) -> None:
    show_table(Table(title, heads, rows))


def figure(result: dict[str, Any], file: Path) -> None:
    """FedAvg by round under each mask schedule, in every case; accuracy by mask ratio; what anchors add to every algorithm."""
    first, cases = part(result), dict.fromkeys((cell["case"], cell["participation"]) for cell in result["cells"])
    panels: list[Callable[[Any], None]] = []
    for case in dict.fromkeys(case for case, _ in cases):
        for alpha in ALPHAS:
            panels.append(
                functools.partial(_rounds, result=part(result, case), alpha=alpha, title=TITLES.get(case, case))
            )
    for case, share in cases:
        cells = part(result, case, share)
        if len(composition(cells, ALPHAS[0])) > 1:
            title = f"{TITLES.get(case, case)}, {share:.0%} of the clients a round"
            panels.append(functools.partial(_gains, result=cells, title=title))
    panels.append(functools.partial(_ratios, result=first))
    with page(file, (len(panels) + 1) // 2, 2, width=5.2, height=4.2) as axes:
        for axis, draw in zip(axes.flat, panels, strict=False):
            draw(axis)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)


def _rounds(axis: Any, result: dict[str, Any], alpha: float, title: str) -> None:
    (cell,) = [c for c in result["cells"] if (c["row"], c["alpha"], c["ratio"]) == ("FedAvg", alpha, 0.4)][:1]
    for kind in dict.fromkeys(run["anchors"] for run in cell["runs"]):
        curves = np.array([run["accuracy"] for run in cell["runs"] if run["anchors"] == kind], float)
        x, (mean, std) = np.arange(1, curves.shape[1] + 1), error_bars(mean_std_columns(curves))
        axis.plot(x, mean, color=COLORS[kind], marker=MARKS[kind], markersize=3, label=NAMES[kind])
        axis.fill_between(x, mean - std, mean + std, color=COLORS[kind], alpha=0.12, linewidth=0)
    axis.set_title(f"{title}: FedAvg, Dirichlet {alpha:g}", loc="left", fontsize=9)
    axis.set_xlabel("round", fontsize=8)
    axis.set_xticks(np.unique(np.linspace(1, len(x), 5).astype(int)))
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="lower right")


def _gain(result: dict[str, Any], kind: str, row: str, alpha: float) -> np.ndarray:
    """Paired differences over the seeds that all rows have."""
    found, base = (scores(result, name, row=row, alpha=alpha, ratio=0.4) for name in (kind, "none"))
    differences: np.ndarray = (found - base)[: SHARED["seeds"]]
    return differences


def _gains(axis: Any, result: dict[str, Any], title: str) -> None:
    names = [line[0] for line in composition(result, ALPHAS[0])]
    y = np.arange(len(names))[::-1]
    for k, (kind, alpha) in enumerate([(kind, alpha) for alpha in ALPHAS for kind in COLUMNS[1:]]):
        gains = [_gain(result, kind, row, alpha) for row in names]
        mean, std = error_bars(map(mean_std, gains))
        axis.errorbar(mean, y + 0.27 - 0.18 * k, xerr=std, fmt=MARKS[kind], color=COLORS[kind], markersize=4, capsize=2,
                      linewidth=1, markerfacecolor=COLORS[kind] if alpha == ALPHAS[0] else "white",
                      label=f"{NAMES[kind]}, Dirichlet {alpha:g}")  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(y, names, fontsize=7)
    axis.set_title(f"accuracy with anchors minus without, paired by seed\n{title}", loc="left", fontsize=9)
    axis.legend(fontsize=6, ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _ratios(axis: Any, result: dict[str, Any]) -> None:
    base = scores(result, "none", row="FedAvg", alpha=ALPHAS[0], ratio=0.4)
    for k, kind in enumerate(COLUMNS[1:]):
        found = [base, *(scores(result, kind, row="FedAvg", alpha=ALPHAS[0], ratio=ratio) for ratio in RATIOS)]
        axis.errorbar(np.array([0, *RATIOS]) + 0.012 * k - 0.006, *error_bars(map(mean_std, found)),
                      color=COLORS[kind], marker=MARKS[kind], markersize=4, capsize=2, label=NAMES[kind])  # fmt: skip
    axis.set_title("Fashion-MNIST MLP: FedAvg, Dirichlet 0.1, by mask ratio", loc="left", fontsize=9)
    axis.set_xlabel("mask ratio (share of anchored weights)", fontsize=8)
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False)

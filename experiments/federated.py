"""Federated learning: every algorithm and server without anchors, with FedPFN and with FedPNU, under heterogeneous clients.

Shows: where anchors help an algorithm and where they do not (the composition table), how the mask ratio matters for FedPFN and
  FedPNU, the two readings of FedPNU, within a client's round and across rounds, and what faulty clients cost.
Hardware: two CPU cores, about 25 minutes. `--full` is the size of the first author's settings (all of Fashion-MNIST with the CNN and
  CIFAR-10 with the ResNet20 with BatchNorm, full and half participation, 200 rounds) for a GPU; it has not been run.
Command: `python -m experiments federated`
Expected: FedAvg at Dirichlet 0.1, where clients differ most: FedPFN above FedAvg by more than the seeds' spread of the paired
  difference, less or nothing at Dirichlet 0.5. Score: test accuracy, mean of the last 5 rounds; mean and sample standard
  deviation over 3 seeds (FedAvg alone: 5), each with its own partition, initial values and masks; differences are paired by seed.
Data: Fashion-MNIST, 3,000 training and 3,000 test examples, MLP 2x100, 20 clients, 20 rounds of 3 passes, batch 16, SGD 0.05 x
  0.99 a round, momentum 0.9, weight decay 5e-4.
"""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.cells import federated
from experiments.plots import page
from fusion.federate_report import COLOURS, MARKS
from train.progress import wide_console

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
FAULTY = "FedAvg, faults"
FAULTS: dict[str, Any] = {"drop": 0.3, "nan_clients": (3,), "wrong_shape_clients": (5,)}
"""Three in ten clients drop out at random, one sends NaN and one a wrong shape in each round."""
COLUMNS = ("none", "pfn", "pnu")
ALPHAS = (0.1, 0.5)
SEEDS = 5
"""Of FedAvg."""
RATIOS = (0.2, 0.4, 0.6, 0.8)
FULL: dict[str, dict[str, Any]] = {
    "fashion_mnist_cnn": {"model": "cnn", "train_examples": None, "test_examples": None, "depth": None, "width": None},
    "cifar10_resnet20": {"dataset": "cifar10", "model": "resnet20_option_a", "norm_statistics": "shared", "train_examples": None,
                         "test_examples": None, "depth": None, "width": None},
}  # fmt: skip
FULL_SIZE: dict[str, Any] = {"rounds": 200, "batch_size": 64, "epochs": 2}


def run(full: bool = False) -> dict[str, Any]:
    """Every cell is a run of `tna federate`: all its mask schedules and seeds; what is finished is read."""
    cases = {name: {**SHARED, **options, **FULL_SIZE} for name, options in FULL.items()} if full else {"": SHARED}
    shares = (1.0, 0.5) if full else (1.0,)
    cells = []
    for case, shared in cases.items():
        for ratio in RATIOS:
            if ratio != 0.4:
                values = {**shared, "alpha": ALPHAS[0], "anchors": COLUMNS[1:], "ratio": ratio, "seeds": SEEDS}
                name = "_".join(filter(None, (case, "FedAvg", f"{ALPHAS[0]:g}", f"ratio_{ratio:g}")))
                cells.append({"row": "FedAvg", "alpha": ALPHAS[0], "case": case, "participation": 1.0, "ratio": ratio,
                              **_cell(name, values, full)})  # fmt: skip
        for share in shares:
            for row, options in ROWS.items():
                more = (
                    {"anchors": (*COLUMNS, "pnu-rounds"), "seeds": SEEDS} if row == "FedAvg" else {"anchors": COLUMNS}
                )
                for alpha in ALPHAS:
                    values = {**shared, **options, "alpha": alpha, "participation": share, **more}
                    name = "_".join(filter(None, (case, row, f"{alpha:g}", "" if share == 1 else f"{share:g}")))
                    cells.append({"row": row, "alpha": alpha, "case": case, "participation": share, "ratio": 0.4,
                                  **_cell(name, values, full)})  # fmt: skip
        values = {**shared, "alpha": ALPHAS[1], "anchors": COLUMNS[:2], "seeds": SEEDS, **FAULTS}
        cells.append({"row": FAULTY, "alpha": ALPHAS[1], "case": case, "participation": 1.0, "ratio": 0.4,
                      **_cell("_".join(filter(None, (case, "FedAvg", f"{ALPHAS[1]:g}", "faults"))), values, full)})  # fmt: skip
    return {"cells": cells}


def _cell(name: str, values: dict[str, Any], full: bool) -> dict[str, Any]:
    return federated("federated" + ("_full" if full else ""), name, values)


def scores(result: dict[str, Any], kind: str, **wanted: Any) -> np.ndarray:
    """(seeds,) the scores of a mask schedule in the cell with the values of `wanted`; NaN if there is no such cell."""
    for cell in result["cells"]:
        if all(cell[key] == value for key, value in wanted.items()):
            found = [run["score"] for run in cell["runs"] if run["anchors"] == kind]
            if found:
                return np.array([np.nan if value is None else value for value in found])
    return np.array([np.nan])


def words(values: np.ndarray, sign: bool = False) -> str:
    """Mean ± sample standard deviation."""
    mean, std = values.mean(), values.std(ddof=1) if len(values) > 1 else np.nan
    return f"{mean:{'+' if sign else ''}.3f} ± {std:.3f}"


def composition(result: dict[str, Any], alpha: float, **wanted: Any) -> list[list[str]]:
    """The rows of the composition table, over the seeds that all rows have: scores by mask schedule, and what anchors add."""
    rows = []
    for row in dict.fromkeys(cell["row"] for cell in result["cells"]):
        found = {
            kind: scores(result, kind, row=row, alpha=alpha, ratio=0.4, **wanted)[: SHARED["seeds"]] for kind in COLUMNS
        }
        if row == FAULTY or np.isnan(found["none"]).all():
            continue
        gains = [words(found[kind] - found["none"], sign=True) for kind in COLUMNS[1:]]
        rows.append([row, *(words(found[kind]) for kind in COLUMNS), *gains])
    return rows


HEADS = ["algorithm", "no anchors", "FedPFN", "FedPNU", "FedPFN - none", "FedPNU - none"]


def ablation(result: dict[str, Any]) -> list[list[str]]:
    """FedAvg at Dirichlet 0.1 by mask ratio."""
    rows = [["0", *[words(scores(result, "none", row="FedAvg", alpha=ALPHAS[0], ratio=0.4))] * 2]]
    for ratio in RATIOS:
        found = [scores(result, kind, row="FedAvg", alpha=ALPHAS[0], ratio=ratio) for kind in ("pfn", "pnu")]
        rows.append([f"{ratio:g}", *map(words, found)])
    return rows


def readings(result: dict[str, Any]) -> list[list[str]]:
    """The two readings of FedPNU beside FedAvg and FedPFN, all seeds, each with its difference to FedAvg."""
    names = {
        "none": "no anchors",
        "pfn": "FedPFN",
        "pnu": "FedPNU within a client's round",
        "pnu-rounds": "FedPNU across rounds",
    }
    rows = []
    for kind, name in names.items():
        cells = []
        for alpha in ALPHAS:
            base, found = (scores(result, k, row="FedAvg", alpha=alpha, ratio=0.4) for k in ("none", kind))
            cells += [words(found), "-" if kind == "none" else words(found - base, sign=True)]
        rows.append([name, *cells])
    return rows


READING_HEADS = ["FedAvg with", *(word for alpha in ALPHAS for word in (f"Dirichlet {alpha:g}", "difference"))]


def faults(result: dict[str, Any]) -> list[list[str]]:
    """FedAvg at Dirichlet 0.5 without and with faults, and the difference, paired by seed."""
    rows = []
    for kind, name in (("none", "no anchors"), ("pfn", "FedPFN")):
        clean, faulty = (scores(result, kind, row=row, alpha=ALPHAS[1], ratio=0.4) for row in ("FedAvg", FAULTY))
        if not np.isnan(faulty).all():
            rows.append([name, words(clean), words(faulty), words(faulty - clean, sign=True)])
    return rows


FAULT_HEADS = ["FedAvg", "all clients good", "30 % dropping, one NaN, one wrong shape", "difference"]


def table(result: dict[str, Any]) -> None:
    """Prints the composition tables, the ablation and the two readings."""
    for alpha in ALPHAS:
        _print(f"Dirichlet {alpha:g}, mask ratio 0.4: accuracy of the last 5 rounds", HEADS, composition(result, alpha))
    _print("FedAvg at Dirichlet 0.1 by mask ratio", ["ratio", "FedPFN", "FedPNU"], ablation(result))
    _print("Faults, Dirichlet 0.5", FAULT_HEADS, faults(result))
    _print("Two readings of FedPNU", READING_HEADS, readings(result))


def _print(title: str, heads: list[str], rows: list[list[str]]) -> None:
    lines = Table(title=title, title_justify="left")
    for head in heads:
        lines.add_column(head)
    for row in rows:
        lines.add_row(*row)
    wide_console().print(lines)


def figure(result: dict[str, Any], file: Path) -> None:
    """Above: FedAvg by round under each mask schedule; below: what anchors add to every algorithm, and accuracy by mask ratio."""
    names = [line[0] for line in composition(result, ALPHAS[0])]
    with page(file, 2, 2, width=5.2, height=4.4) as axes:
        for axis, alpha in zip(axes[0], ALPHAS, strict=True):
            _rounds(axis, result, alpha)
        _gains(axes[1, 0], result, names)
        _ratios(axes[1, 1], result)


def _rounds(axis, result: dict[str, Any], alpha: float) -> None:
    (cell,) = [c for c in result["cells"] if (c["row"], c["alpha"], c["ratio"]) == ("FedAvg", alpha, 0.4)][:1]
    for kind in dict.fromkeys(run["anchors"] for run in cell["runs"]):
        curves = np.array([run["accuracy"] for run in cell["runs"] if run["anchors"] == kind], float)
        x, mean, std = np.arange(1, curves.shape[1] + 1), curves.mean(0), curves.std(0, ddof=1)
        axis.plot(x, mean, color=COLOURS[kind], marker=MARKS[kind], markersize=3, label=kind)
        axis.fill_between(x, mean - std, mean + std, color=COLOURS[kind], alpha=0.12, linewidth=0)
    axis.set_title(f"FedAvg, Dirichlet {alpha:g}", loc="left", fontsize=9)
    axis.set_xlabel("round", fontsize=8)
    axis.set_xticks(np.unique(np.linspace(1, len(x), 5).astype(int)))
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="lower right")


def _gains(axis, result: dict[str, Any], names: list[str]) -> None:
    y = np.arange(len(names))[::-1]
    for k, (kind, alpha) in enumerate([(kind, alpha) for alpha in ALPHAS for kind in COLUMNS[1:]]):
        gains = [
            scores(result, kind, row=row, alpha=alpha, ratio=0.4)
            - scores(result, "none", row=row, alpha=alpha, ratio=0.4)
            for row in names
        ]
        mean, std = [g.mean() for g in gains], [g.std(ddof=1) if len(g) > 1 else 0 for g in gains]
        axis.errorbar(mean, y + 0.27 - 0.18 * k, xerr=std, fmt=MARKS[kind], color=COLOURS[kind], markersize=4, capsize=2,
                      linewidth=1, markerfacecolor=COLOURS[kind] if alpha == ALPHAS[0] else "white",
                      label=f"{kind}, Dirichlet {alpha:g}")  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(y, names, fontsize=7)
    axis.set_title("accuracy with anchors minus without, paired by seed", loc="left", fontsize=9)
    axis.legend(fontsize=6, ncols=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _ratios(axis, result: dict[str, Any]) -> None:
    base = scores(result, "none", row="FedAvg", alpha=ALPHAS[0], ratio=0.4)
    for k, kind in enumerate(COLUMNS[1:]):
        found = [base, *(scores(result, kind, row="FedAvg", alpha=ALPHAS[0], ratio=ratio) for ratio in RATIOS)]
        axis.errorbar(np.array([0, *RATIOS]) + 0.012 * k - 0.006, [f.mean() for f in found], [f.std(ddof=1) if len(f) > 1 else 0 for f in found],
                      color=COLOURS[kind], marker=MARKS[kind], markersize=4, capsize=2, label=kind)  # fmt: skip
    axis.set_title("FedAvg, Dirichlet 0.1, by mask ratio", loc="left", fontsize=9)
    axis.set_xlabel("mask ratio (share of anchored weights)", fontsize=8)
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False)

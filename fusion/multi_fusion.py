"""Fusing 2 to 32 networks: accuracy of their average against their number, with anchors and without.

Shows: networks that share anchors can all be averaged into one; without anchors the average gets worse the more there are where
  they have a barrier.
Hardware: two CPU cores, about 25 minutes. `--full` (whole data sets, 32 networks everywhere) has not been run.
Command: `python -m fusion multi_fusion`
Expected: one initialization, Fashion-MNIST: the average of 32 with anchors within a point of the mean of its members or above.
  Mean and sample standard deviation over the disjoint groups of N networks of one population and over populations, each with
  an initial value of its own: 5 populations of 32 MLPs. One of 32 CNNs and one of 8 ResNet20s: no spread at the largest N.
Data: MNIST and Fashion-MNIST MLP 4x128, 8,000 examples, 6 epochs; CIFAR-10 CNN, 2,000 examples, and layer-norm ResNet20,
  1,000 examples, 12 epochs; one initialization; mask ratio 0.4 with anchors.
"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity
from tna_jax.io.json_files import to_json
from tna_jax.programs.population.load import Population, open_runs
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from tna_jax.programs.training.splits import splits
from train.cells import populated
from train.plots import GREYS, MARKS, page

COUNTS = (2, 4, 8, 16, 32)
METHODS = {"no anchors": 0.0, "TNA, ratio 0.4": 0.4}
SHARED: dict[str, Any] = {"train_examples": 8000, "epochs": 6, "batch_size": 64, "learning_rate": 0.05, "members": 32,
                          "init": "same"}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mnist": ("MNIST, MLP 4x128", {"dataset": "mnist"}),
    "fashion": ("Fashion-MNIST, MLP 4x128", {"dataset": "fashion_mnist"}),
    "cnn": ("CIFAR-10, CNN", {"dataset": "cifar10", "model": "cnn", "train_examples": 2000, "epochs": 12}),
    "resnet20": ("CIFAR-10, ResNet20, layer norm", {"dataset": "cifar10", "model": "resnet20", "norm": "layer",
                                                    "train_examples": 1000, "test_examples": 2000, "epochs": 12, "members": 8,
                                                    "optimizer": "adam", "learning_rate": 0.002, "schedule": "cosine",
                                                    "batch_size": 32}),
}  # fmt: skip
POPULATIONS = {"mnist": 5, "fashion": 5}
"""Populations of a case; one if it is not named."""
FULL: dict[str, Any] = {
    "train_examples": None,
    "test_examples": None,
    "epochs": 30,
    "schedule": "cosine",
    "members": 32,
}


def run(full: bool = False) -> dict[str, Any]:
    """Trains the populations and evaluates all averages of each in one pass."""
    lines = []
    for case, (title, options) in CASES.items():
        for method, ratio in METHODS.items():
            values = {**SHARED, **options, "ratio": ratio, **(FULL if full else {})}
            found = []
            for population in range(POPULATIONS.get(case, 1)):
                place = "multi_fusion" + ("_full" if full else ""), f"{case}_{ratio:g}_{population}"
                found.append(_averages(open_runs((str(populated(*place, {**values, "seed": population})),), None)))
            lines += [{"case": title, "method": method, **line} for line in _lines(found)]
    contents: dict[str, Any] = to_json({"config": {"shared": SHARED, "cases": dict(CASES.values())}, "lines": lines})
    return contents


def _lines(found: list[tuple[dict[int, np.ndarray], np.ndarray]]) -> list[dict[str, Any]]:
    """A line for each number of networks, over all groups of all populations."""
    members = np.concatenate([alone for _, alone in found])
    made = []
    for number in found[0][0]:
        fused = np.concatenate([averages[number] for averages, _ in found])
        made.append(
            {
                "models": number,
                "n": len(fused),
                "populations": len(found),
                "fused": list(mean_std(fused)),
                "members": list(mean_std(members)),
            }
        )
    return made


def _averages(opened: Population) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """By number of networks the accuracy of the averages of the disjoint groups; and that of the members."""
    count = len(opened.models)
    counts = [number for number in COUNTS if number <= count]
    groups = {number: np.arange(count // number * number).reshape(-1, number) for number in counts}
    weights = np.concatenate([np.eye(count)[group].mean(1) for group in groups.values()])
    data = {"test": splits(opened.data)["test"]}
    found = connectivity.evaluate_mixtures(
        opened.network,
        opened.params,
        weights,
        data,
        state=opened.state,
        calibration=jnp.asarray(opened.data.train.images[:2000]),
    )["test"].accuracy
    alone = connectivity.evaluate(opened.network, opened.params, data, state=opened.state)["test"].accuracy
    parts = np.split(found, np.cumsum([len(group) for group in groups.values()])[:-1])
    return dict(zip(counts, parts, strict=True)), alone


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy of the average against the number of networks, a panel for each case."""
    cases = list(dict.fromkeys(line["case"] for line in result["lines"]))
    with page(file, -(-len(cases) // 2), 2) as axes:
        for axis, case in zip(axes.flat, cases, strict=False):
            for k, method in enumerate(METHODS):
                lines = [line for line in result["lines"] if (line["case"], line["method"]) == (case, method)]
                values = np.array([[np.nan if v is None else v for v in line["fused"]] for line in lines])
                x = [line["models"] for line in lines]
                axis.errorbar(x, values[:, 0], np.nan_to_num(values[:, 1]), marker=MARKS[k], capsize=2, markersize=4,
                              color=GREYS[1 - k], linestyle=("--", "-")[k], label=f"average, {method}")  # fmt: skip
                axis.axhline(lines[0]["members"][0], color=GREYS[1 - k], linewidth=0.8, linestyle=":")
            axis.set_xscale("log", base=2)
            axis.set_xticks(COUNTS, map(str, COUNTS))
            axis.set_title(case, loc="left", fontsize=9)
            axis.set_xlabel("networks averaged (dotted: mean of the members)", fontsize=8)
        for axis in axes[:, 0]:
            axis.set_ylabel("test accuracy", fontsize=8)
        for axis in list(axes.flat)[len(cases) :]:
            axis.set_visible(False)
        axes[0, 1].legend(fontsize=7, frameon=False, loc="lower left")


def table(result: dict[str, Any]) -> None:
    """Every number of networks."""
    rows = []
    for line in result["lines"]:
        cells = [format_mean_std(line[key]) for key in ("fused", "members")]
        rows.append([line["case"], line["method"], str(line["models"]), str(line["n"]), *cells])
    heads = ["data, network", "networks", "N", "groups", "average", "members"]
    show_table(Table("Averages of N networks from one initialization, test set", heads, rows, keys=3))

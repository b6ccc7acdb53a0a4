"""Heavy anchors in federations: a mask that stays for all rounds, and anchors that weigh more in the server's initial model.

Shows: FedAvg without anchors, FedPFN with a fresh mask each round, and one mask for all rounds with initial anchors of 1, 2 and 4 times their
  weight. All clients start from one model, so that of the recipe for networks from different initializations only the weight is left.
Hardware: two CPU cores, a few minutes; there is no larger size, `--full` computes the same.
Command: `python -m fusion federated_heavy`
Expected: not known before; between two networks heavier anchors lower the barrier and cost some accuracy.
Data: Fashion-MNIST, 3,000 training and 3,000 test images, MLP 2x100, 20 clients, Dirichlet 0.1, all in each round, 20 rounds of 2 passes of batch 16,
  SGD 0.05 x 0.99 a round, momentum 0.9, weight decay 5e-4, ratio 0.4; mean and sample standard deviation over 3 seeds, score of the last 5 rounds.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion import federation_runs
from fusion.federated import format_scores
from fusion.federation_runs import Setting, score
from fusion.merging_methods import Kept
from tna_jax import masks
from tna_jax.federated.schedules import Schedule
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, mean_std_columns
from tna_jax.programs.reports.terminal import show_table
from train import cells
from train.plots import page

OPTIONS: dict[str, Any] = {
    "dataset": "fashion_mnist", "train_examples": 3000, "test_examples": 3000, "model": "mlp", "depth": 2, "width": 100, "clients": 20,
    "rounds": 20, "epochs": 2, "batch_size": 16, "learning_rate": 0.05, "alpha": 0.1,
}  # fmt: skip
RATIO = 0.4
SEEDS = (0, 1, 2)


class Kind(NamedTuple):
    """Which anchors."""

    title: str
    fixed: bool = False
    """One mask for all rounds."""
    scale: float = 1.0
    """Of the anchors' initial values."""


KINDS = (
    Kind("no anchors"),
    Kind("FedPFN, a fresh mask each round"),
    Kind("one mask", True),
    Kind("one mask, anchors x 2", True, 2.0),
    Kind("one mask, anchors x 4", True, 4.0),
)


def fixed_mask(key: Any, params: Any, ratio: float) -> Any:
    """Draws the mask of every round from a key of its own."""
    del key
    return masks.bernoulli(_fixed_key(), params, ratio)


def _fixed_key() -> Any:
    import jax

    return jax.random.key(2**20)


def run(full: bool = False) -> dict[str, Any]:
    """Runs every kind with every seed; what is kept is not computed again."""
    (cells.RUNS / "federated_heavy").mkdir(parents=True, exist_ok=True)
    kept = Kept(cells.RUNS / "federated_heavy" / "curves.json")
    setting = federation_runs.prepare(**OPTIONS)
    rows = []
    for kind in KINDS:
        curves = [kept(f"{kind.title} {seed}", functools.partial(curve, setting, kind, seed)) for seed in SEEDS]
        rows.append({"kind": kind.title, "fixed": kind.fixed, "scale": kind.scale, "accuracy": curves})
    return {"options": OPTIONS, "ratio": RATIO, "seeds": SEEDS, "rows": rows}


def curve(setting: Setting, kind: Kind, seed: int) -> list[float | None]:
    """Accuracy by round of one federation."""
    schedule = (
        Schedule() if kind == KINDS[0] else Schedule("pfn", RATIO, draw=fixed_mask if kind.fixed else masks.bernoulli)
    )

    def begin(params: Any) -> Any:
        return masks.scale_anchors(params, fixed_mask(None, params, RATIO), kind.scale) if kind.scale != 1 else params

    return federation_runs.run(setting, setting.prepared.federation, schedule, seed, begin=begin).accuracy


def lines(result: dict[str, Any]) -> list[list[str]]:
    """A row for every kind: accuracy, and its paired differences to no anchors and to FedPFN."""
    scores = [np.array([score(values) for values in row["accuracy"]]) for row in result["rows"]]
    found = []
    for k, (row, values) in enumerate(zip(result["rows"], scores, strict=True)):
        gains = [format_scores(values - scores[base], sign=True) if k > base else "-" for base in (0, 1)]
        found.append([row["kind"], format_scores(values), *gains])
    return found


LINE_HEADS = ["anchors", "accuracy", "less no anchors", "less FedPFN"]


def table(result: dict[str, Any]) -> None:
    """Prints the lines."""
    show_table(
        Table(
            "FedAvg, Fashion-MNIST MLP, Dirichlet 0.1, ratio 0.4: accuracy of the last 5 rounds",
            LINE_HEADS,
            lines(result),
        )
    )


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy by round."""
    with page(file, 1, 1, width=5.6, height=4.0) as axes:
        axis = axes[0, 0]
        for row, color, mark in zip(
            result["rows"], ("#8a8f98", "#1b6ca8", "#3c8d53", "#8a6d1d", "#c7522a"), "os^vD", strict=True
        ):
            curves = np.array(row["accuracy"], float)
            x, (mean, std) = np.arange(1, curves.shape[1] + 1), error_bars(mean_std_columns(curves))
            axis.plot(x, mean, color=color, marker=mark, markersize=3, linewidth=1.3, label=row["kind"])
            axis.fill_between(x, mean - std, mean + std, color=color, alpha=0.08, linewidth=0)
        axis.set_title("FedAvg, Fashion-MNIST MLP, Dirichlet 0.1", loc="left", fontsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_xlabel("round", fontsize=8)
        axis.set_ylabel("test accuracy", fontsize=8)
        axis.legend(fontsize=7, frameon=False, loc="lower right")

"""What an uploaded byte buys: FedAvg whole, with 8-bit numbers, with the largest entries, and with anchors, at equal bytes.

Shows: accuracy at equal bytes up, at equal bytes in both directions, and at equal rounds. Anchored entries travel in neither direction, masks
  travel as seeds; compressed uploads leave the way down as it is.
Hardware: two CPU cores, about ten minutes; there is no larger size, `--full` computes the same.
Command: `python -m fusion federated_bytes`
Expected: 8-bit numbers the best at equal bytes up, anchors with 8-bit numbers the best in both directions.
Data: Fashion-MNIST, 3,000 training and 3,000 test images, MLP 2x100, 20 clients, Dirichlet 0.1, all in each round, one pass of batch 16 a round, SGD
  0.05 x 0.99 a round, momentum 0.9, weight decay 5e-4; mean and sample standard deviation over 3 seeds. Each way runs for as many rounds as its
  uploads need to sum up to those of 20 rounds of FedAvg; a score is the mean accuracy of the last 5 rounds that the bytes pay for.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion import federation_runs
from fusion.compressed_uploads import Largest, Quantized
from fusion.federated import format_scores
from fusion.federation_runs import score
from fusion.merging_methods import Kept
from tna_jax.federated.algorithm import Algorithm
from tna_jax.federated.federation import FEDAVG
from tna_jax.federated.schedules import Schedule
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, mean_std_columns
from tna_jax.programs.reports.terminal import show_table
from train import cells
from train.plots import page

OPTIONS: dict[str, Any] = {
    "dataset": "fashion_mnist", "train_examples": 3000, "test_examples": 3000, "model": "mlp", "depth": 2, "width": 100, "clients": 20,
    "epochs": 1, "batch_size": 16, "learning_rate": 0.05, "alpha": 0.1,
}  # fmt: skip
PAID_ROUNDS = 20
"""Of FedAvg with whole uploads: what all ways may spend."""
SEEDS = (0, 1, 2)
TOP = 0.1


class Way(NamedTuple):
    """How a round's moves travel."""

    title: str
    ratio: float
    """Share of anchored entries (FedPFN)."""
    algorithm: Algorithm
    bytes_up: float
    """Of a live entry, on average."""

    def up(self) -> float:
        """Bytes up for each parameter and client in a round."""
        return (1 - self.ratio) * self.bytes_up

    def down(self) -> float:
        """Likewise down: all clients hold the model of the round before, in which the live entries moved."""
        return (1 - self.ratio) * 4


WAYS = (
    Way("FedAvg", 0.0, FEDAVG, 4),
    Way("8-bit", 0.0, Quantized(), 1),
    Way("largest 10 %", 0.0, Largest(share=TOP), 8 * TOP),
    Way("FedPFN 0.4", 0.4, FEDAVG, 4),
    Way("FedPFN 0.8", 0.8, FEDAVG, 4),
    Way("FedPFN 0.4, 8-bit", 0.4, Quantized(), 1),
)
"""Of the largest entries a number and its place travel, 8 bytes."""


def rounds_for(way: Way, both: bool = False) -> int:
    """Returns how many rounds of a way cost at most what `PAID_ROUNDS` of FedAvg do: uploads, or both directions."""
    budget = PAID_ROUNDS * (8 if both else 4)
    return int(budget / (way.up() + (way.down() if both else 0)) + 1e-9)


def run(full: bool = False) -> dict[str, Any]:
    """Runs every way with every seed for the rounds that its uploads pay for; what is kept is not computed again."""
    kept = Kept(cells.RUNS / "federated_bytes" / "curves.json")
    (cells.RUNS / "federated_bytes").mkdir(parents=True, exist_ok=True)
    rows = []
    for way in WAYS:
        setting = federation_runs.prepare(**OPTIONS, rounds=rounds_for(way))
        federation = dataclasses.replace(setting.prepared.federation, algorithm=way.algorithm)
        schedule = Schedule("pfn", way.ratio) if way.ratio else Schedule()
        runs = [
            kept(
                f"{way.title} {seed}",
                lambda s=seed, f=federation, m=schedule, t=setting: federation_runs.run(t, f, m, s)._asdict(),
            )
            for seed in SEEDS
        ]
        rows.append({
            "way": way.title, "ratio": way.ratio, "bytes_up": way.up(), "bytes_down": way.down(), "rounds_up": rounds_for(way),
            "rounds_both": rounds_for(way, both=True), "live": float(np.mean([curve["live"] for curve in runs])),
            "accuracy": [curve["accuracy"] for curve in runs],
        })  # fmt: skip
    return {"options": OPTIONS, "paid_rounds": PAID_ROUNDS, "seeds": SEEDS, "rows": rows}


def scores(row: dict[str, Any], rounds: int) -> np.ndarray:
    """(seeds,) the scores after so many rounds."""
    return np.array([score(curve, rounds) for curve in row["accuracy"]])


def lines(result: dict[str, Any]) -> list[list[str]]:
    """A row for every way: bytes a round, and accuracy with what it gains on FedAvg, at equal rounds and at equal bytes."""
    base, found = scores(result["rows"][0], result["paid_rounds"]), []
    for row in result["rows"]:
        cells_of_row = [row["way"], f"{row['bytes_up']:.2f}", f"{row['bytes_down']:.2f}"]
        for rounds in (result["paid_rounds"], row["rounds_up"], row["rounds_both"]):
            values = scores(row, rounds)
            gain = "" if row["way"] == "FedAvg" else f" ({format_scores(values - base, sign=True)})"
            cells_of_row.append(f"{rounds}: {format_scores(values)}{gain}")
        found.append(cells_of_row)
    return found


LINE_HEADS = ["uploads", "bytes up", "down", "equal rounds", "equal bytes up", "equal bytes up and down"]


def table(result: dict[str, Any]) -> None:
    """Prints the lines."""
    title = "Rounds that the bytes pay for: accuracy (less FedAvg, paired by seed); bytes for each parameter, client and round"
    show_table(Table(title, LINE_HEADS, lines(result)))


COLORS = ("#444444", "#c7522a", "#8a6d1d", "#1b6ca8", "#7a5195", "#3c8d53")
DASHES = ("-", "--", ":", "-", "-", "-.")


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy by bytes up, and by bytes in both directions, each round the mean of the last 5."""
    with page(file, 1, 2, width=5.2, height=3.8) as axes:
        for axis, both in zip(axes[0], (False, True), strict=True):
            for row, color, dash in zip(result["rows"], COLORS, DASHES, strict=True):
                limit = row["rounds_both"] if both else row["rounds_up"]
                curves = np.array([[score(curve, n) for n in range(1, limit + 1)] for curve in row["accuracy"]])
                mean, std = error_bars(mean_std_columns(curves))
                spent = np.arange(1, limit + 1) * (row["bytes_up"] + (row["bytes_down"] if both else 0))
                axis.plot(spent, mean, dash, color=color, linewidth=1.4, label=row["way"])
                axis.fill_between(spent, mean - std, mean + std, color=color, alpha=0.08, linewidth=0)
            axis.set_xlabel("bytes " + ("up and down" if both else "up") + " for each parameter and client", fontsize=8)
            axis.set_ylabel("test accuracy, mean of 5 rounds", fontsize=8)
            axis.legend(fontsize=7, frameon=False, loc="lower right")
        axes[0, 0].set_title("Fashion-MNIST MLP, Dirichlet 0.1: by bytes up", loc="left", fontsize=9)
        axes[0, 1].set_title("by bytes in both directions", loc="left", fontsize=9)

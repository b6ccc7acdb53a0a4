"""The settings that were tried for what `tna federate` runs without options: on the digits, with and without anchors.

Shows: in which settings FedPFN (and FedPNU) add to the score on this small task, and in which they do not: all that were tried.
Hardware: two CPU cores, about half an hour.
Command: `python -m fusion federated_default`
Expected: no gain, rather a loss of a point, under plain FedAvg at a learning rate that suits it (the digits are learned to 0.95 with all clients anyway); a gain
  beyond the spread with momentum on the server and half or a quarter of the clients in a round. Score: test accuracy, mean of the last 5 rounds; gains
  are paired by seed, mean ± sample standard deviation. Settings were compared on seeds from 100 on, the chosen ones again on seeds 0 to 9.
Data: digits (1,437 training, 360 test images), MLP 2x100, 20 clients, SGD 0.05 x 0.99 a round, momentum 0.9, weight decay 5e-4, ratio 0.4,
  batch 8, unless a setting says otherwise.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import federated
from train.plots import page

SHARED: dict[str, Any] = {
    "dataset": "digits", "depth": 2, "width": 100, "clients": 20, "rounds": 15, "epochs": 3, "batch_size": 8, "alpha": 0.1,
    "participation": 1.0, "seeds": 2, "first_seed": 100, "anchors": ("none", "pfn"),
}  # fmt: skip
ONE_CLASS: dict[str, Any] = {"partition": "shard", "shards": 1, "alpha": FederateOptions.alpha}
MOMENTUM: dict[str, Any] = {"server": "fedavgm"}
QUARTER: dict[str, Any] = {"participation": 0.25}
SHORT: dict[str, Any] = {"rounds": 10, "epochs": 5, "seeds": 5}
AGAIN: dict[str, Any] = {"first_seed": 0, "seeds": 10}
SETTINGS: dict[str, dict[str, Any]] = {
    "FedAvg, 10 rounds of 5 passes": {**SHORT, "anchors": ("none", "pfn", "pnu")},
    "FedAvg, a class a client, 10 rounds of 5 passes": {**SHORT, **ONE_CLASS},
    "FedAvg, half, 10 rounds of 5 passes": {**SHORT, "participation": 0.5},
    "FedAvgM, half, 10 rounds of 5 passes": {**SHORT, **MOMENTUM, "participation": 0.5},
    "FedAvg, half, 10 rounds of 5 passes, seeds 0 to 9": {**SHORT, **AGAIN, "participation": 0.5},
    "FedAvgM, half, 10 rounds of 5 passes, seeds 0 to 9": {**SHORT, **AGAIN, **MOMENTUM, "participation": 0.5},
    "FedAvgM": MOMENTUM,
    "FedAvgM, learning rate 0.1": {**MOMENTUM, "learning_rate": 0.1},
    "FedAvg, learning rate 0.2": {"learning_rate": 0.2},
    "FedAvg, a class a client": ONE_CLASS,
    "FedAvgM, a class a client": {**ONE_CLASS, **MOMENTUM},
    "FedAvg, a quarter": QUARTER,
    "FedAvg, a quarter, other seeds": {**QUARTER, "first_seed": 102, "seeds": 3, "anchors": ("none", "pfn", "pnu")},
    "FedAvg, a quarter, learning rate 0.02": {**QUARTER, "learning_rate": 0.02, "seeds": 3},
    "FedAvg, a quarter, seeds 0 to 9": {**QUARTER, **AGAIN},
    "FedAvgM, a quarter": {**QUARTER, **MOMENTUM},
    "FedAvgM, a quarter, seeds 0 to 9": {**QUARTER, **MOMENTUM, **AGAIN},
}
"""By what differs from `SHARED`; half, quarter: of the clients in a round."""
NAMES = {"pfn": "FedPFN", "pnu": "FedPNU"}


def run(full: bool = False) -> dict[str, Any]:
    """Every setting is a run of `tna federate`; what is finished is read."""
    settings = []
    for name, changed in SETTINGS.items():
        options = {**SHARED, **changed}
        runs = federated("federated_default", name.replace(",", "").replace(" ", "_"), options)["runs"]
        scores = {kind: [line["score"] for line in runs if line["anchors"] == kind] for kind in options["anchors"]}
        settings.append({"name": name, "options": options, "scores": scores})
    return {"settings": settings}


def gains(setting: dict[str, Any], kind: str) -> np.ndarray:
    """(seeds,) what a mask schedule adds to the score, paired by seed; NaN where it was not tried."""
    scores = setting["scores"]
    difference: np.ndarray = np.array(scores.get(kind, [np.nan]), float) - np.array(scores["none"], float)
    return difference


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Of each setting: seeds, the score without anchors, what FedPFN and FedPNU add."""
    return [
        [setting["name"], str(len(setting["scores"]["none"])), format_mean_std(mean_std(setting["scores"]["none"]), 3),
         *(format_mean_std(mean_std(gains(setting, kind)), 3, sign=True) if kind in setting["scores"] else "-" for kind in NAMES)]
        for setting in result["settings"]
    ]  # fmt: skip


HEADS = ["setting", "seeds", "no anchors", "FedPFN - none", "FedPNU - none"]


def table(result: dict[str, Any]) -> None:
    """Prints all settings."""
    show_table(Table("Digits, 20 clients, Dirichlet 0.1: test accuracy of the last 5 rounds", HEADS, rows(result)))


def figure(result: dict[str, Any], file: Path) -> None:
    """What FedPFN adds in every setting."""
    settings = result["settings"]
    with page(file, 1, 1, width=7.0, height=0.4 * len(settings) + 1.2) as axes:
        axis, y = np.ravel(axes)[0], np.arange(len(settings))[::-1]
        mean, std = error_bars(mean_std(gains(setting, "pfn")) for setting in settings)
        axis.errorbar(mean, y, xerr=std, fmt="s", color="#1b6ca8", markersize=4, capsize=2, linewidth=1)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(y, [setting["name"] for setting in settings], fontsize=7)
        axis.set_xlabel("accuracy with FedPFN minus without, paired by seed", fontsize=8)

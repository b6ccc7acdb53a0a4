"""Privacy of clients: accuracy at equal epsilon without anchors and with FedPFN, whose anchored entries need no noise.

Shows: what clipped and noisy averages reach at epsilon 2 and 8 (delta 1e-5), by mask ratio.
Hardware: two CPU cores, about ten minutes; there is no larger size, `--full` computes the same.
Command: `python -m fusion federated_privacy`
Expected: at equal noise fewer noisy coordinates, so ahead of no anchors where noise is what limits accuracy.
Data: MNIST whole, MLP 1x64 of 50,890 parameters, 2,000 clients of 30 images, two pieces of the sorted images each, of whom each takes part in a round
  with the chance 0.05; 60 rounds of one pass, batch 10, SGD 0.1. The clip is chosen for every ratio and epsilon, of two, by a seed of its
  own; mean and sample standard deviation over 3 others. Epsilon is that of `tna_jax.federated.privacy.epsilon` (dp-accounting), which
  needs the extra `privacy` and is not needed to compute this: its noise multipliers are in `NOISE`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from fusion import federation_runs
from fusion.federated import format_scores
from fusion.federation_runs import LAST, Setting, score
from fusion.merging_methods import Kept
from tna_jax.federated.privacy import Privacy
from tna_jax.federated.schedules import Schedule
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, mean_std
from tna_jax.programs.reports.terminal import show_table
from train import cells
from train.plots import page

OPTIONS: dict[str, Any] = {
    "dataset": "mnist", "model": "mlp", "depth": 1, "width": 64, "clients": 2000, "participation": 0.05, "partition": "shard", "rounds": 60,
    "epochs": 1, "batch_size": 10, "learning_rate": 0.1, "learning_rate_decay": 1.0, "momentum": 0.0, "weight_decay": 0.0,
}  # fmt: skip
DELTA = 1e-5
NOISE: dict[str, float] = {"2": 1.189, "8": 0.6435}
"""Noise multiplier by epsilon, at 60 rounds, participation 0.05 and delta 1e-5: privacy loss distributions of dp-accounting 0.6.0."""
RATIOS = (0.0, 0.4)
CLIPS = (0.3, 1.0)
SEEDS = (0, 1, 2)
TUNING_SEED = 100


def run(full: bool = False) -> dict[str, Any]:
    """Chooses the clip of every ratio and epsilon, then runs every seed; what is kept is not computed again."""
    kept = Kept(cells.RUNS / "federated_privacy" / "scores.json")
    (cells.RUNS / "federated_privacy").mkdir(parents=True, exist_ok=True)
    setting = federation_runs.prepare(**OPTIONS)
    rows = []
    for epsilon, noise in NOISE.items():
        for ratio in RATIOS:
            tuned = {
                f"{clip:g}": kept(
                    f"{epsilon} {ratio:g} {clip:g} {TUNING_SEED}",
                    lambda *a, c=clip, r=ratio, z=noise: scored(setting, c, z, r, TUNING_SEED),
                )
                for clip in CLIPS
            }
            clip = float(max(tuned, key=lambda name: tuned[name]))
            scores = [
                kept(
                    f"{epsilon} {ratio:g} {clip:g} {seed}",
                    lambda *a, c=clip, r=ratio, z=noise, s=seed: scored(setting, c, z, r, s),
                )
                for seed in SEEDS
            ]
            rows.append(
                {"epsilon": epsilon, "noise": noise, "ratio": ratio, "clip": clip, "tuned": tuned, "scores": scores}
            )
    return {"options": OPTIONS, "delta": DELTA, "accountant": "dp-accounting 0.6.0, privacy loss distributions", "seeds": SEEDS,
            "tuning_seed": TUNING_SEED, "rows": rows}  # fmt: skip


def scored(setting: Setting, clip: float, noise: float, ratio: float, seed: int) -> float:
    """The score of one federation."""
    options = setting.options
    federation = setting.prepared.federation
    privacy = Privacy(clip, noise, options.participation * options.clients)
    federation = dataclasses.replace(federation, server=dataclasses.replace(federation.server, privacy=privacy))
    schedule = Schedule("pfn", ratio) if ratio else Schedule()
    last = options.rounds - LAST
    return score(
        federation_runs.run(setting, federation, schedule, seed, scored=lambda number: number >= last).accuracy
    )


def lines(result: dict[str, Any]) -> list[list[str]]:
    """A row for every epsilon and ratio: the chosen clip, accuracy, and what anchors add, paired by seed."""
    found = []
    for row in result["rows"]:
        (base,) = (other for other in result["rows"] if (other["epsilon"], other["ratio"]) == (row["epsilon"], 0))
        gain = format_scores(np.subtract(row["scores"], base["scores"]), sign=True) if row["ratio"] else "-"
        noise = f"{row['noise']:g}"
        found.append(
            [
                row["epsilon"],
                noise,
                f"{row['ratio']:g}",
                f"{row['clip']:g}",
                format_scores(np.array(row["scores"])),
                gain,
            ]
        )
    return found


LINE_HEADS = ["epsilon", "noise multiplier", "ratio", "clip", "accuracy", "less no anchors"]


def table(result: dict[str, Any]) -> None:
    """Prints the lines, and the clips that were tried."""
    show_table(
        Table(
            f"Privacy of clients, delta {result['delta']:g}: accuracy of the last 5 rounds", LINE_HEADS, lines(result)
        )
    )
    tried = [
        [row["epsilon"], f"{row['ratio']:g}", *(f"{value:.3f}" for value in row["tuned"].values())]
        for row in result["rows"]
    ]
    show_table(
        Table(
            "the clips that were tried, one seed",
            ["epsilon", "ratio", *(f"clip {clip}" for clip in result["rows"][0]["tuned"])],
            tried,
        )
    )


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy by epsilon, a line for each ratio."""
    with page(file, 1, 1, width=5.2, height=3.8) as axes:
        axis = axes[0, 0]
        words = list(dict.fromkeys(row["epsilon"] for row in result["rows"]))
        for ratio, color, mark in zip(RATIOS, ("#8a8f98", "#1b6ca8"), "os", strict=True):
            values = [np.array(row["scores"]) for row in result["rows"] if row["ratio"] == ratio]
            label = f"FedPFN, ratio {ratio:g}" if ratio else "no anchors"
            axis.errorbar(np.arange(len(words)) + 0.05 * RATIOS.index(ratio), *error_bars(map(mean_std, values)), color=color, marker=mark,
                          markersize=4, capsize=2, label=label)  # fmt: skip
        axis.set_xticks(range(len(words)), [f"epsilon {word}" for word in words], fontsize=8)
        axis.set_title("MNIST, 2,000 clients, delta 1e-5", loc="left", fontsize=9)
        axis.set_ylabel("test accuracy", fontsize=8)
        axis.legend(fontsize=7, frameon=False, loc="lower right")

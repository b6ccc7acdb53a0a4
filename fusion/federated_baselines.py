"""Five published federated algorithms without anchors, with FedPFN and with FedPNU: is the best combination with anchors the best of all?

Shows: FedAvg, FedProx, FedDyn, SCAFFOLD and FedAvgM under the three mask schedules, paired by seed, and FedDyn and FedAvgM with FedPNU
  (named before this ran, from `python -m fusion federated`) against every algorithm without anchors.
Hardware: two CPU cores; `--minutes 10` computes in slices that resume where the last one stopped, bit for bit on one kind of processor, and
  writes what is finished; what the committed results hold is not computed again. `--full` is the first author's setting for a GPU (convolutions then run under `map`); it has not been run.
Command: `python -m fusion federated_baselines`
Expected: the named combinations ahead of every algorithm without anchors in most seeds at Dirichlet 0.1.
Data: those of `python -m fusion federated` (3,000 images, 20 clients, Dirichlet 0.1, all in each round, 20 rounds of 3 passes) with seeds that it has not:
  Fashion-MNIST with the MLP 2x100, then CIFAR-10 with the CNN, seed by seed, as far as the time allowed. `--full`: CIFAR-10 whole, 200 rounds of 2 passes, batch 64, in the order of `STAGES`: the CNN,
  the CNN with half of the clients in each round, FedAvg and the two named combinations with the ResNet20 with BatchNorm, then the rest.
  Score: test accuracy, mean of the last 5 rounds; each seed has its own partition, initial values and masks.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fusion import federated
from fusion.federated import CNN, COLORS, COLUMNS, HEADS, MARKS, NAMES, PLAIN, RESNET, format_scores
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.progress import Interrupted, console, time_is_over
from tna_jax.programs.federate.run import RESULTS
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import error_bars, mean_std, mean_std_columns
from tna_jax.programs.reports.terminal import show_table
from train import cells
from train.plots import page

ROWS: dict[str, dict[str, Any]] = {
    "FedAvg": {}, "FedProx": {"algorithm": "fedprox"}, "FedDyn": {"algorithm": "feddyn", **PLAIN},
    "SCAFFOLD": {"algorithm": "scaffold", **PLAIN}, "FedAvgM": {"server": "fedavgm"},
}  # fmt: skip
RESULTS_FOLDER = Path(__file__).parent / "results"
NAMED = ("FedDyn", "FedAvgM")
"""With FedPNU they were the best of `fusion/results/federated.json`, the MLP at Dirichlet 0.1."""
SHARED: dict[str, Any] = {"anchors": COLUMNS, "alpha": 0.1, "seeds": 1, "checkpoints_kept": 1}
FULL_SIZE: dict[str, Any] = {"dataset": "cifar10", "rounds": 200, "epochs": 2, "batch_size": 64}
NEW_SEEDS = (3, 4, 5, 6, 7)
"""Partitions, initial values and masks on which nothing was chosen: the sweep has seeds 0, 1, 2 of these rows."""


class Stage(NamedTuple):
    """Rows under one setting."""

    title: str
    options: dict[str, Any]
    rows: tuple[str, ...] = tuple(ROWS)
    seeds: tuple[int, ...] = NEW_SEEDS


def full_stage(network: str, alpha: float, participation: float, rows: tuple[str, ...] = tuple(ROWS)) -> Stage:
    """A stage of the first author's setting."""
    title = f"CIFAR-10 {network}, Dirichlet {alpha:g}, {participation:.0%} of the clients a round"
    size = {**(CNN if network == "CNN" else RESNET), **FULL_SIZE, "alpha": alpha, "participation": participation}
    return Stage(title, {"clients": 20, "learning_rate": 0.05, **SHARED, **size}, rows, tuple(range(5)))


STAGES: dict[str, Stage] = {
    "fashion_mlp": Stage("Fashion-MNIST MLP", {**federated.SHARED, **SHARED}),
    "cifar10_cnn": Stage("CIFAR-10 CNN", {**federated.CASES["cifar10_cnn"].options, **SHARED}),
}
FULL_STAGES: dict[str, Stage] = {
    "cnn": full_stage("CNN", 0.1, 1.0),
    "cnn_half": full_stage("CNN", 0.1, 0.5),
    "resnet20": full_stage("ResNet20", 0.1, 1.0, ("FedAvg", *NAMED)),
    "cnn_0.5": full_stage("CNN", 0.5, 1.0),
    "cnn_0.5_half": full_stage("CNN", 0.5, 0.5),
    "resnet20_rest": full_stage("ResNet20", 0.1, 1.0, ("FedProx", "SCAFFOLD")),
    "resnet20_half": full_stage("ResNet20", 0.1, 0.5),
    "resnet20_0.5": full_stage("ResNet20", 0.5, 1.0),
    "resnet20_0.5_half": full_stage("ResNet20", 0.5, 0.5),
}


def cell_names(stages: dict[str, Stage]) -> Iterator[tuple[str, int, str]]:
    """Yields stage, seed and row in the order in which they are computed: a whole seed of a stage before the next seed."""
    for name, stage in stages.items():
        for seed in stage.seeds:
            for row in stage.rows:
                yield name, seed, row


def run(full: bool = False) -> dict[str, Any]:
    """Every cell is a run of `tna federate`, all mask schedules of a row and a seed; returns what is finished when the time is over."""
    stages, finished = FULL_STAGES if full else STAGES, []
    experiment = "federated_baselines" + ("_full" if full else "")
    names = list(cell_names(stages))
    committed = committed_cells(RESULTS_FOLDER / f"{experiment}.json", stages)
    for name, seed, row in names:
        cell_name = f"{name}_{row}_{seed}"
        if (name, seed, row) in committed:
            finished.append(committed[name, seed, row])
            continue
        if time_is_over() and not (cells.RUNS / experiment / cell_name / RESULTS[0]).is_file():
            break  # what is finished is only read
        options = {**stages[name].options, **ROWS[row], "first_seed": seed}
        try:
            cell = cells.federated(experiment, cell_name, options)
        except Interrupted:
            if not time_is_over():
                raise
            break
        # what is finished is read from its results: states of clients would only take room
        shutil.rmtree(cells.RUNS / experiment / cell_name / "checkpoints", ignore_errors=True)
        finished.append(
            {"stage": name, "seed": seed, "row": row, "parameters": cell["parameters"], "runs": cell["runs"]}
        )
    if len(finished) < len(names):
        console.print(f"{len(finished)} of {len(names)} cells are finished; the same command resumes")
    titles = {
        name: {"title": stage.title, "options": stage.options, "rows": stage.rows} for name, stage in stages.items()
    }
    not_run = [" ".join((name, row, f"seed {seed}")) for name, seed, row in names[len(finished) :]]
    return {"stages": titles, "algorithms": ROWS, "cells": finished, "not_run": not_run}


def committed_cells(file: Path, stages: dict[str, Stage]) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Returns the cells of committed results by stage, seed and row; those of a stage or row whose options are others now are left out."""
    if not file.exists():
        return {}
    result = json.loads(file.read_text())
    same = {
        name
        for name, stage in stages.items()
        if result["stages"].get(name, {}).get("options") == to_json(stage.options)
    }
    rows = {row for row, options in ROWS.items() if result["algorithms"].get(row) == to_json(options)}
    return {
        (cell["stage"], cell["seed"], cell["row"]): cell
        for cell in result["cells"]
        if cell["stage"] in same and cell["row"] in rows
    }


def scores(result: dict[str, Any], stage: str, row: str, kind: str) -> dict[int, float]:
    """The scores of a row under a mask schedule by seed; one that diverged has NaN."""
    found = {}
    for cell in result["cells"]:
        if (cell["stage"], cell["row"]) == (stage, row):
            (run,) = (run for run in cell["runs"] if run["anchors"] == kind)
            found[cell["seed"]] = np.nan if run["score"] is None else run["score"]
    return found


def paired(first: dict[int, float], second: dict[int, float]) -> np.ndarray:
    """Differences of the seeds that both have."""
    return np.array([first[seed] - second[seed] for seed in first if seed in second])


def stages_of(result: dict[str, Any]) -> list[str]:
    """Stages of which something is finished."""
    return list(dict.fromkeys(cell["stage"] for cell in result["cells"]))


def composition(result: dict[str, Any], stage: str) -> list[list[str]]:
    """The rows of a stage: number of seeds, scores by mask schedule, and what anchors add, paired by seed."""
    rows = []
    for row in result["stages"][stage]["rows"]:
        values = {kind: scores(result, stage, row, kind) for kind in COLUMNS}
        if values["none"]:
            gains = [format_scores(paired(values[kind], values["none"]), sign=True) for kind in COLUMNS[1:]]
            rows.append(
                [
                    row,
                    str(len(values["none"])),
                    *(format_scores(np.array(list(values[kind].values()))) for kind in COLUMNS),
                    *gains,
                ]
            )
    return rows


def duels(result: dict[str, Any], stage: str) -> list[list[str]]:
    """The named combinations less every algorithm without anchors: paired difference, and in how many seeds they are ahead."""
    rows = []
    for base in result["stages"][stage]["rows"]:
        gains = [paired(scores(result, stage, name, "pnu"), scores(result, stage, base, "none")) for name in NAMED]
        rows.append([base, *map(format_duel, gains)])
    return rows


def sweep_verdicts(sweep: dict[str, Any]) -> list[list[str]]:
    """FedDyn with FedPNU against the best without anchors, in every setting of `python -m fusion federated` that has more rows than FedAvg."""
    lines = []
    for case, share in dict.fromkeys((cell["case"], cell["participation"]) for cell in sweep["cells"]):
        part = federated.part(sweep, case, share)
        for alpha in federated.ALPHAS:
            bases = {
                line[0]: _sweep_scores(part, line[0], "none", alpha) for line in federated.composition(part, alpha)
            }
            if len(bases) > 1:
                named = _sweep_scores(part, NAMED[0], "pnu", alpha)
                best = max(bases, key=lambda row: bases[row].mean())
                ahead = sum(bool(named.mean() > values.mean()) for values in bases.values())
                lines.append([
                    f"{federated.TITLES.get(case, case)}, Dirichlet {alpha:g}, {share:.0%} of the clients", f"{best}: {format_scores(bases[best])}",
                    format_scores(named), format_duel(named - bases[best]), f"{ahead} of {len(bases)}",
                ])  # fmt: skip
    return lines


def _sweep_scores(part: dict[str, Any], row: str, kind: str, alpha: float) -> np.ndarray:
    """(seeds,) scores of the seeds that all rows have."""
    found: np.ndarray = federated.scores(part, kind, row=row, alpha=alpha, ratio=0.4)[: federated.SHARED["seeds"]]
    return found


SWEEP_HEADS = [
    "setting",
    "best without anchors",
    f"{NAMED[0]} with FedPNU",
    "difference (seeds ahead)",
    "rows that it is ahead of",
]


def format_duel(gain: np.ndarray) -> str:
    """Paired differences: mean, deviation, and in how many seeds they are positive."""
    return f"{format_scores(gain, sign=True)} ({np.sum(gain > 0)} of {len(gain)})" if len(gain) else "-"


def with_sweep(result: dict[str, Any], sweep: dict[str, Any], stage: str, case: str) -> dict[str, Any]:
    """The cells of a stage with those of the sweep's seeds, of the same setting, before them."""
    cells_of_sweep = []
    for cell in federated.part(sweep, case)["cells"]:
        if cell["row"] in ROWS and (cell["alpha"], cell["ratio"]) == (SHARED["alpha"], 0.4):
            for seed in range(federated.SHARED["seeds"]):
                runs = [run for run in cell["runs"] if run["seed"] == seed]
                cells_of_sweep.append({"stage": stage, "seed": seed, "row": cell["row"], "runs": runs})
    return {**result, "cells": [*cells_of_sweep, *result["cells"]]}


COMPOSITION_HEADS = [HEADS[0], "seeds", *HEADS[1:]]
DUEL_HEADS = ["without anchors", *(f"{name} with FedPNU, less it" for name in NAMED)]


def table(result: dict[str, Any]) -> None:
    """Prints for every stage the composition and the duels, and how much was not run."""
    for stage in stages_of(result):
        title = result["stages"][stage]["title"]
        show_table(Table(f"{title}: accuracy of the last 5 rounds", COMPOSITION_HEADS, composition(result, stage)))
        show_table(
            Table(
                f"{title}: paired differences, and seeds in which they are positive", DUEL_HEADS, duels(result, stage)
            )
        )
    if result["not_run"]:
        print(f"not run: {len(result['not_run'])} cells, the first of them {result['not_run'][0]}")


def figure(result: dict[str, Any], file: Path) -> None:
    """For every stage accuracy by round of the named combinations and of all algorithms without anchors, and scores of all."""
    stages = stages_of(result)
    with page(file, max(len(stages), 1), 2, width=5.2, height=3.8) as axes:
        for (left, right), stage in zip(axes, stages, strict=False):
            _rounds(left, result, stage)
            _scores(right, result, stage)


ROW_COLORS = dict(zip(ROWS, ("#1b6ca8", "#8a8f98", "#c7522a", "#7a5195", "#3c8d53"), strict=True))


def _rounds(axis: Any, result: dict[str, Any], stage: str) -> None:
    lines = [(row, "none", ":") for row in ROWS] + [(row, "pnu", "-") for row in NAMED]
    for row, kind, dash in lines:
        runs = [run for cell in result["cells"] if (cell["stage"], cell["row"]) == (stage, row) for run in cell["runs"]]
        curves = np.array([run["accuracy"] for run in runs if run["anchors"] == kind], float)
        if len(curves):
            mean, _ = error_bars(mean_std_columns(curves))
            label = row if kind == "none" else f"{row}, FedPNU"
            axis.plot(np.arange(1, len(mean) + 1), mean, dash, color=ROW_COLORS[row], linewidth=1.4, label=label)
    axis.set_title(f"{result['stages'][stage]['title']}, mean over seeds", loc="left", fontsize=9)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("round", fontsize=8)
    axis.set_ylabel("test accuracy", fontsize=8)
    axis.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4)


def _scores(axis: Any, result: dict[str, Any], stage: str) -> None:
    rows = [row for row in result["stages"][stage]["rows"] if scores(result, stage, row, "none")]
    y = np.arange(len(rows))[::-1]
    for k, kind in enumerate(COLUMNS):
        values = [np.array(list(scores(result, stage, row, kind).values())) for row in rows]
        mean, std = error_bars(map(mean_std, values))
        axis.errorbar(mean, y + 0.2 - 0.2 * k, xerr=std, fmt=MARKS[kind], color=COLORS[kind], markersize=4, capsize=2,
                      linewidth=1, label=NAMES[kind])  # fmt: skip
    axis.set_yticks(y, rows, fontsize=8)
    axis.set_title("accuracy of the last 5 rounds, mean and deviation over seeds", loc="left", fontsize=9)
    axis.legend(fontsize=7, ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1))

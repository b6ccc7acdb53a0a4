"""Many at once: averages of 2 to 16 networks from different initial values, apart or pulled together (PAPA), beside ensembles and one long run.

Shows: what the average of N networks reaches that trained apart with common anchors (W-Asym's with a small start, and our heavy ones)
  and without; what PAPA (arXiv 2304.03094: every 10 steps each network moves by a hundredth, or a tenth, of its way to the
  population's mean) adds to it; the ensemble of the same networks; and the averages along one run of equal cost (SWA: the mean of the
  last half of the epochs' ends; EMA: of the epochs' ends with decay 0.8).
Hardware: one CPU core, half an hour a seed; `--minutes N` stops after N minutes, and the same command resumes there. What the
  committed results hold is not trained again.
  `--full`: all of MNIST and 25 epochs (a day of two cores, or a GPU); not run.
Command: `python -m train papa`
Expected: without anchors and apart the average falls to near chance with 16 networks; with anchors it does not fall; PAPA brings
  networks without anchors together too, if it pulls by a tenth. Mean and sample standard deviation over seeds (initial values, anchors, orders).
Data: MNIST; the network, recipe and images of the record's `mlp_small` (6,000 images, 8 epochs) or `mlp`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, logsumexp

from tna_jax import averaging, ensemble
from tna_jax.calibration import cross_entropy
from tna_jax.ensemble import Papa, init_ensemble
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.progress import Interrupted, console, time_is_over
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import MeanStd, format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train.plots import GREYS, MARKS, page
from train.record import members as members_lib
from train.record.members import Network
from train.record.pairs import logits
from train.record.settings import CASES, Case, agree

RUNS = Path("runs") / "experiments" / "papa"
RESULTS = Path(__file__).parent / "results"
NETWORKS = 16
COUNTS = (1, 2, 4, 8, 16)
SEEDS = 3
ROWS = ("standard", "w_asym_start.1", "heavy_unit")
"""Of the record's settings."""
PULLS = {"apart": None, "PAPA 0.01": Papa(10, 0.01), "PAPA 0.1": Papa(10, 0.1)}
ONE_RUN = "one run"
EMA_DECAY = 0.8
"""Of the mean of the epochs' ends (ours)."""


def run(full: bool = False) -> dict[str, Any]:
    """Trains the populations that are not trained yet, seed by seed while there is time, and returns what those of whole seeds reached."""
    name = "mlp" if full else "mlp_small"
    case = CASES[name]
    network = members_lib.load(case)
    setting = {
        "title": case.title,
        "epochs": case.stages[-1],
        "labels": {row: case.rows[row].label for row in (*ROWS, "standard")},
        "settings": {row: case.rows[row] for row in ROWS},
        "recipe": case.recipe(),
    }
    committed = RESULTS / f"papa{'_full' if full else ''}.json"
    if committed.exists():
        restore(json.loads(committed.read_text()), setting, name)
    wanted = [(row, pull) for row in ROWS for pull in PULLS] + [("standard", ONE_RUN)]
    cells: list[dict[str, Any]] = []
    seeds = 0
    while seeds < SEEDS:
        reached = [cell(name, row, pull, seeds, case, network) for row, pull in wanted]
        if None in reached:
            console.print(f"stopped in seed {seeds}; the same command resumes there")
            break
        cells += [of_seed for of_seed in reached if of_seed is not None]
        seeds += 1
    if not cells:
        raise Interrupted
    return setting | {"seeds": seeds, "cells": cells}


def cell(name: str, row: str, pull: str, seed: int, case: Case, network: Network) -> dict[str, Any] | None:
    """Returns what one population reached, or one long run; what is finished is read. None: it is not, and the time is over.

    Raises:
      UsageError: what is finished was trained with other settings.
    """
    file = cell_file(name, row, pull, seed)
    setting = {"setting": case.rows[row], "recipe": case.recipe()}
    if not file.exists():
        if time_is_over():
            return None
        console.print(f"{name}: {case.rows[row].label}, {pull}, seed {seed}")
        reached = long_run(case, network, row, seed) if pull == ONE_RUN else population(case, network, row, pull, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        found = {"row": row, "pull": pull, "seed": seed, "reached": reached, "provenance": provenance([seed])} | setting
        write_json(file, to_json(found))
    result: dict[str, Any] = json.loads(file.read_text())
    if not agree(result, setting):
        raise UsageError(f"{file} was trained with other settings than {name} has now; move it away")
    return result


def cell_file(name: str, row: str, pull: str, seed: int) -> Path:
    """Where what one population reached stands."""
    return RUNS / name / f"{row}_{pull.replace(' ', '_')}_{seed}.json"


def restore(results: Mapping[str, Any], setting: Mapping[str, Any], name: str) -> None:
    """Puts what results hold where a finished population is looked for; nothing if they are of another setting.

    Args:
      results: as `run` returned them.
      setting: fields of the results that must be these, where they have them.
      name: of the case.
    """
    if not agree(results, setting):
        return
    for stored in results["cells"]:
        file = cell_file(name, stored["row"], stored["pull"], stored["seed"])
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, stored)


def population(case: Case, network: Network, row: str, pull: str, seed: int) -> list[dict[str, Any]]:
    """Trains a population at once; for each number of networks the mean over its disjoint groups of members, average and ensemble."""
    trainer = dataclasses.replace(network.trainer, papa=PULLS[pull])
    members = start(case, network, row, seed, NETWORKS)
    trained, _ = ensemble.train_ensemble(trainer, members, *network.train, case.stages[-1])
    params = jax.tree.map(np.asarray, trained.params)
    labels = network.test[1]
    of_members = [logits(network, jax.tree.map(lambda x, i=i: x[i], params), network.test[0]) for i in range(NETWORKS)]
    alone = [score(x, labels) for x in of_members]
    reached = []
    for count in COUNTS:
        groups = [slice(first, first + count) for first in range(0, NETWORKS, count)]
        averages = [averaging.uniform_soup(jax.tree.map(lambda x, g=group: x[g], params)) for group in groups]
        together = [ensemble_logits(of_members[group]) for group in groups]
        reached.append(
            {
                "count": count,
                "members": mean_of(alone),
                "average": mean_of([score(logits(network, average, network.test[0]), labels) for average in averages]),
                "ensemble": mean_of([score(x, labels) for x in together]),
            }
        )
    return reached


def long_run(case: Case, network: Network, row: str, seed: int) -> list[dict[str, Any]]:
    """Trains one network for the epochs of N; at each N: the network, the mean of the last half of its epochs' ends (SWA), their EMA."""
    epochs = case.stages[-1]
    ends: list[Any] = []

    def on_epoch(epoch: int, now: Any, metrics: Any) -> None:
        ends.append(jax.tree.map(lambda x: np.array(x[0]), now().params))

    members = start(case, network, row, seed, 1)
    ensemble.train_ensemble(network.trainer, members, *network.train, epochs * NETWORKS, on_epoch=on_epoch)
    labels, reached = network.test[1], []
    ema = ends[0]
    emas = [ema := jax.tree.map(lambda a, b: EMA_DECAY * a + (1 - EMA_DECAY) * b, ema, end) for end in ends]
    for count in COUNTS:
        last = epochs * count
        models = {
            "members": ends[last - 1],
            "swa": averaging.uniform_soup(averaging.stack(ends[last // 2 : last])),
            "ema": emas[last - 1],
        }
        scores = {kind: score(logits(network, model, network.test[0]), labels) for kind, model in models.items()}
        reached.append({"count": count, **scores})
    return reached


def start(case: Case, network: Network, row: str, seed: int, count: int) -> ensemble.Members:
    """Returns `count` networks of one setting, leaves (count, ...): own initial values and orders of the data, the first one's anchors."""
    init = jax.jit(network.init)
    values = [members_lib.he(init(stream(seed, Stream.RUN_INIT, i))[0], case.he) for i in range(count)]
    setting = case.rows[row]
    pairs = [members_lib.initial(setting, value, values[0], seed) for value in values]
    hyper = {
        "rate": np.full(count, case.rate(0), np.float32),
        "decay": np.full(count, case.decay if setting.decay is None else setting.decay, np.float32),
    }
    keys = jnp.stack([stream(seed, Stream.RUN_ORDER, i) for i in range(count)])
    params, masks = ([pair[i] for pair in pairs] for i in (0, 1))
    return init_ensemble(network.trainer, averaging.stack(params), keys, averaging.stack(masks), hyper)


def ensemble_logits(of_members: list[np.ndarray]) -> np.ndarray:
    """Returns logits (N, C) float64 whose probabilities are the mean of those of the members' logits, (N, C) each."""
    combined: np.ndarray = logsumexp([log_softmax(x.astype(np.float64), axis=1) for x in of_members], axis=0)
    return combined


def score(values: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns mean cross-entropy in nats, and accuracy, of logits (N, C)."""
    return {"loss": cross_entropy(values, labels), "accuracy": float((values.argmax(1) == labels).mean())}


def mean_of(scores: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each measure."""
    return {measure: float(np.mean([entry[measure] for entry in scores])) for measure in scores[0]}


def lines(result: dict[str, Any], measure: str) -> list[tuple[str, str, str, list[MeanStd]]]:
    """Returns (setting, how it trained, what of it, mean and deviation over seeds for each of `COUNTS`) of a measure."""
    built = []
    by_setting: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    for entry in result["cells"]:
        by_setting.setdefault((entry["row"], entry["pull"]), []).append(entry["reached"])
    for (row, pull), seeds in by_setting.items():
        for kind in [kind for kind in seeds[0][0] if kind != "count"]:
            values = [mean_std([reached[i][kind][measure] for reached in seeds]) for i in range(len(COUNTS))]
            built.append((result["labels"][row], pull, kind, values))
    return built


def tables(result: dict[str, Any]) -> list[Table]:
    """Accuracy and loss by the number of networks."""
    return [
        Table(
            f"{result['title']}, {result['epochs']} epochs: test {measure} of N networks, mean ± std over {result['seeds']} seeds",
            ["setting", "trained", "what", *(f"N = {count}" for count in COUNTS)],
            [
                [
                    setting,
                    pull,
                    "one model" if kind == "members" else kind,
                    *(format_mean_std(v, digits) for v in values),
                ]
                for setting, pull, kind, values in lines(result, measure)
            ],
        )
        for measure, digits in (("accuracy", 4), ("loss", 3))
    ]


def table(result: dict[str, Any]) -> None:
    """Prints the tables."""
    for built in tables(result):
        show_table(built)


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy against N: a column for each setting, its averages by way of training, the ensemble, one long run; below, the upper end alone."""
    drawn = lines(result, "accuracy")
    best = [value.mean or 0.0 for *_, values in drawn for value in values]
    with page(file, 2, len(ROWS), width=3.4, height=2.6, sharey="row") as axes:
        for (whole, upper), row in zip(axes.T, ROWS, strict=True):
            for axis in (whole, upper):
                _averages(axis, drawn, result["labels"][row])
            whole.set_title(result["labels"][row], fontsize=8, loc="left")
            upper.set_xlabel("networks averaged, or cost of one run", fontsize=8)
        for axis, title in zip(axes[:, 0], ("test accuracy", "test accuracy, upper end"), strict=True):
            axis.set_ylabel(title, fontsize=8)
        axes[1][0].set_ylim(max(best) - 0.035, max(best) + 0.004)
        axes[0][-1].legend(fontsize=6.5, frameon=False, loc="lower left")


def _averages(axis: Any, drawn: list[tuple[str, str, str, list[MeanStd]]], label: str) -> None:
    looks = {"apart": (GREYS[0], "-"), "PAPA 0.01": (GREYS[1], "--"), "PAPA 0.1": (GREYS[2], ":")}
    for setting, pull, kind, values in drawn:
        mean, deviation = np.array(values, float).T
        if pull == ONE_RUN and kind == "swa":
            axis.plot(COUNTS, mean, color="black", marker="x", markersize=4, linewidth=0.8, label="one run, SWA")
        if setting != label or pull not in looks or kind == "members" or (kind == "ensemble" and pull != "apart"):
            continue
        color, dash = ("#888888", "-") if kind == "ensemble" else looks[pull]
        axis.errorbar(
            COUNTS, mean, yerr=deviation, color=color, linestyle=dash, capsize=2, markersize=4,
            marker=MARKS[3 if kind == "ensemble" else 0], label=f"{kind}, {pull}",
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(COUNTS, [str(count) for count in COUNTS])

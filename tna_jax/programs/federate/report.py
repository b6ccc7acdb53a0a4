"""What `tna federate` shows: the list of algorithms, a table and a figure, both from the contents of `federate.json` alone."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.federated import ALGORITHMS, SERVERS
from tna_jax.programs.cli.progress import plural, wide_console

SCHEDULES = {
    "none": ("no anchors", "-"),
    "pfn": ("FedPFN: a fresh shared mask each round", "2402.01342"),
    "pnu": ("FedPNU: the mask, then its complement, within a client's round (form ours)", "2402.01342"),
    "pnu-rounds": (
        "FedPNU across rounds: the mask in even rounds, its complement in odd ones (form ours)",
        "2402.01342",
    ),
}
COLOURS = {"none": "#8a8f98", "pfn": "#1b6ca8", "pnu": "#c7522a", "pnu-rounds": "#3c8d53"}
MARKS = {"none": "o", "pfn": "s", "pnu": "^", "pnu-rounds": "v"}
LAST = 5
"""The score is the mean test accuracy of so many last rounds, as in the first author's code."""


def listing() -> None:
    """Prints every algorithm, server and mask schedule with its paper."""
    lines = Table(title="Any algorithm goes with any server and any mask schedule", title_justify="left")
    for head in ("option", "name", "what it is", "arXiv"):
        lines.add_column(head)
    for name, made in ALGORITHMS.items():
        lines.add_row("--algorithm", name, made.title, made.paper)
    for name, rule in SERVERS.items():
        lines.add_row("--server", name, rule().title, rule().paper)
    lines.add_row("--server", "adam, sgd, ...", "any optax optimizer, with --server-learning-rate", "-")
    for name, (text, paper) in SCHEDULES.items():
        lines.add_row("--anchors", name, text, paper)
    wide_console().print(lines)


def headline(config: dict[str, Any]) -> str:
    """The federation in a few words."""
    spread = {"dirichlet": f"Dirichlet {config['alpha']:g}", "shard": f"{config['shards']} shards", "iid": "iid"}
    server = "" if config["server"] == "mean" else f" with {config['server']}"
    part = f", {config['participation']:.0%} a round" if config["participation"] < 1 else ""
    return f"{config['algorithm']}{server}, {config['clients']} clients{part}, {spread[config['partition']]}"


def present(result: dict[str, Any]) -> list[str]:
    """The mask schedules, in the order of the runs."""
    return list(dict.fromkeys(run["anchors"] for run in result["runs"]))


def of_schedule(result: dict[str, Any], kind: str, column: str) -> np.ndarray:
    """(seeds, ...) of a column, NaN for what is not finite."""
    found = [run[column] for run in result["runs"] if run["anchors"] == kind]
    return np.array(found, np.float64)


def score(result: dict[str, Any], kind: str) -> tuple[float, float]:
    """Mean accuracy of the last rounds, and its sample standard deviation: over seeds, or with one seed over the rounds."""
    scores = of_schedule(result, kind, "score")
    if len(scores) > 1:
        return float(scores.mean()), float(scores.std(ddof=1))
    return float(scores[0]), float(of_schedule(result, kind, "score_std")[0])


def table(result: dict[str, Any]) -> None:
    """Prints a row for each mask schedule, and who was missing or refused."""
    config, runs = result["config"], result["runs"]
    seeds, rounds = len({run["seed"] for run in runs}), config["rounds"]
    over = f"{seeds} seeds" if seeds > 1 else "those rounds"
    last = min(LAST, rounds)
    lines = Table(
        title=f"{config['dataset']}, {result['network']}, {headline(config)}, {rounds} rounds: test accuracy",
        title_justify="left",
    )
    for head in ("anchors", "ratio", f"mean of the last {last} rounds ± std over {over}", "best round", "test loss",
                 "live a round", "kB up a client and round"):  # fmt: skip
        lines.add_column(head, justify="left" if head == "anchors" else "right")
    for kind in present(result):
        live = of_schedule(result, kind, "live").mean()
        upload = live * result["parameters"] * 4 / 1000 * (2 if config["algorithm"] == "scaffold" else 1)
        loss = of_schedule(result, kind, "loss")[:, -last:].mean()
        best = of_schedule(result, kind, "accuracy").max(1).mean()
        ratio = "-" if kind == "none" else f"{config['ratio']:g}"
        mean, std = score(result, kind)
        lines.add_row(
            kind,
            ratio,
            f"{mean:.4f}" + (f" ± {std:.4f}" if np.isfinite(std) else ""),
            f"{best:.4f}",
            f"{loss:.4f}",
            f"{live:.0%}",
            f"{upload:,.0f}",
        )
    wide_console().print(lines)
    _turnout(runs, rounds)


def _turnout(runs: list[dict[str, Any]], rounds: int) -> None:
    """Names the clients whose replies were refused, and counts those that were missing or late."""
    for run in runs:
        if run["diverged_in_round"] is not None:
            print(
                f"{run['anchors']} seed {run['seed']}: diverged, its test loss is not finite from round {run['diverged_in_round']} on"
            )
    total: dict[str, dict[int, int]] = {"refused": {}, "dropped": {}, "late": {}}
    for run in runs:
        for what, counts in run["turnout"].items():
            for client, count in counts.items():
                total[what][int(client)] = total[what].get(int(client), 0) + count
    for client, count in sorted(total["refused"].items()):
        print(f"client {client}: {count} replies refused of {rounds * len(runs)} rounds (reasons in metrics.jsonl)")
    for what, words in (("dropped", "replies never came"), ("late", "replies came from stragglers")):
        if total[what]:
            print(f"{sum(total[what].values())} {words}, of {len(total[what])} clients")


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws accuracy and loss of the server's model after each round: the mean over seeds, every seed as a thin line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    config = result["config"]
    rounds = np.arange(1, config["rounds"] + 1)
    grid, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for kind in present(result):
        colour, ratio = COLOURS[kind], "" if kind == "none" else f", ratio {config['ratio']:g}"
        mean, std = score(result, kind)
        for axis, column in zip(axes, ("accuracy", "loss"), strict=True):
            curves = of_schedule(result, kind, column)
            for curve in curves if len(curves) > 1 else ():
                axis.plot(rounds, curve, color=colour, linewidth=0.6, alpha=0.5)
            label = f"{kind}{ratio}: {mean:.3f} ± {std:.3f}" if column == "accuracy" else f"{kind}{ratio}"
            axis.plot(rounds, curves.mean(0), color=colour, marker=MARKS[kind], markersize=3.5, linewidth=1.6, label=label,
                      markevery=max(1, len(rounds) // 12))  # fmt: skip
    last = min(LAST, len(rounds))
    axes[0].axvspan(rounds[-last] - 0.5, rounds[-1] + 0.5, color="black", alpha=0.05, linewidth=0)
    axes[0].set(xlabel="round", ylabel="test accuracy of the server's model")
    axes[1].set(xlabel="round", ylabel="test loss (nats)")
    grid.legend(
        *axes[0].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=4,
        title=f"accuracy, mean of the last {plural(last, 'round')} (shaded)", title_fontsize=8,
    )  # fmt: skip
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    grid.suptitle(f"{config['dataset']}, {result['network']}, {headline(config)}", fontsize=11)
    grid.savefig(file, dpi=130)
    plt.close(grid)

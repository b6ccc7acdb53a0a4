"""What `tna federate` shows: the list of algorithms, and from the contents of `federate.json` alone accuracy and loss by round."""

from typing import Any

import numpy as np

from tna_jax.federated import ALGORITHMS, SERVERS
from tna_jax.programs.cli.progress import plural
from tna_jax.programs.federate import report_clients, report_costs
from tna_jax.programs.reports import measures, rounds, terminal
from tna_jax.programs.reports.blocks import Description, Table
from tna_jax.programs.reports.divergence import DIVERGED
from tna_jax.programs.reports.figures import Figure
from tna_jax.programs.reports.rounds import LAST
from tna_jax.programs.reports.statistics import finite_mean_std, format_mean_std, format_number, mean_std, number
from tna_jax.programs.reports.wording import dataset_name

SCHEDULES = {
    "none": ("no anchors", "-"),
    "pfn": ("FedPFN: a fresh shared mask each round", "2402.01342"),
    "pnu": ("FedPNU: the mask, then its complement, within a client's round (form ours)", "2402.01342"),
    "pnu-rounds": (
        "FedPNU across rounds: the mask in even rounds, its complement in odd ones (form ours)",
        "2402.01342",
    ),
}
COLORS = {"none": "muted", "pfn": "c1", "pnu": "c2", "pnu-rounds": "c3"}
"""Names of colors in figures."""
Result = dict[str, Any]


def listing() -> None:
    """Prints every algorithm, server and mask schedule with its paper."""
    rows = [["--algorithm", name, algorithm.title, algorithm.paper] for name, algorithm in ALGORITHMS.items()]
    rows += [["--server", name, rule().title, rule().paper] for name, rule in SERVERS.items()]
    rows += [["--server", "adam, sgd, ...", "any optax optimizer, with --server-learning-rate", "-"]]
    rows += [["--anchors", name, text, paper] for name, (text, paper) in SCHEDULES.items()]
    caption = "Any algorithm goes with any server and any mask schedule"
    terminal.show_table(Table(caption, ["option", "name", "what it is", "arXiv"], rows, keys=4))


def headline(config: dict[str, Any]) -> str:
    """Returns the federation in a few words."""
    spread = {"dirichlet": f"Dirichlet {config['alpha']:g}", "shard": plural(config["shards"], "shard"), "iid": "iid",
              "natural": "natural clients"}  # fmt: skip
    server = "" if config["server"] == "mean" else f" with {config['server']}"
    balanced = " balanced" if config.get("balance") else ""
    part = f", {100 * config['participation']:.3g}% a round" if config["participation"] < 1 else ""
    return f"{config['algorithm']}{server}, {plural(config['clients'], 'client')}{part}, {spread[config['partition']]}{balanced}"


def column(result: Result, kind: str, name: str) -> list[Any]:
    """Returns a column of the runs of a mask schedule, a value for each seed."""
    return [run[name] for run in result["runs"] if run["anchors"] == kind]


def without_diverged(run: Result) -> Result:
    """Returns a run without the accuracies of rounds whose loss is not finite, and without a score if one of the last rounds is such."""
    finite = [loss is not None for loss in run["loss"]]
    if all(finite):
        return run
    accuracies = {name: [value if sound else None for value, sound in zip(run[name], finite, strict=True)]
                  for name in ("accuracy", *report_clients.MEASURES) if name in run}  # fmt: skip
    return {**run, **accuracies, **({} if all(finite[-LAST:]) else {"score": None, "score_std": None})}


def learned(run: Result) -> bool:
    """Returns whether any reply of a client was accepted."""
    return any(run.get("taken", [True]))


def score(result: Result, kind: str) -> list[float | None]:
    """Returns [mean, standard deviation] of the accuracy of the last rounds: over seeds, or with one seed over the rounds."""
    scores = column(result, kind, "score")
    return [*finite_mean_std(scores)] if len(scores) > 1 else [scores[0], column(result, kind, "score_std")[0]]


def score_text(result: Result, kind: str, digits: int = 4) -> str:
    """Writes the score, or why there is none."""
    if all(value is None for value in column(result, kind, "score")):
        return DIVERGED
    runs = [run for run in result["runs"] if run["anchors"] == kind]
    return format_mean_std(score(result, kind), digits) if any(map(learned, runs)) else "nothing learned"


def describe(result: Result, split: str = "test") -> Description:
    """Describes the mask schedules: the server's model after each round, its clients, what it cost, and who was missing or refused."""
    config, runs = result["config"], [without_diverged(run) for run in result["runs"]]
    result = {**result, "runs": runs}
    kinds = list(dict.fromkeys(run["anchors"] for run in runs))
    rows = [
        {"round": i + 1, "anchors": run["anchors"], "seed": run["seed"], **{key: values[i] for key, values in columns.items()}}
        for run in runs
        for columns in [{key: value for key, value in run.items() if isinstance(value, list)}]
        for i in range(len(run["accuracy"]))
    ]  # fmt: skip
    generic = rounds.describe({"rounds": rows}, split, by=("anchors",))
    last = min(LAST, config["rounds"])
    first = measures.of_result(result)[0]
    labels = {kind: kind + ("" if kind == "none" else f", ratio {config['ratio']:g}") + f": {first.name} "
                    + score_text(result, kind, 3) for kind in kinds}  # fmt: skip
    shaded = (config["rounds"] - last + 0.5, config["rounds"] + 0.5)
    names = {"accuracy": "test accuracy of the server's model",
             "loss": "test loss (nats)" if first.name == "accuracy" else f"test {first.label}"}  # fmt: skip
    figures: list[Figure] = [
        rounds.styled(figure, COLORS, labels, title=f"{figure.title}, scored over the shaded ones",
                      yaxis=names.get(figure.yaxis, figure.yaxis), span=shaded)
        for figure in rounds.curves_of(generic)
    ]  # fmt: skip
    heading = f"{dataset_name(config)}, {result['network']}, {headline(config)}, {plural(config['rounds'], 'round')}"
    seeds = len({run["seed"] for run in runs})
    over = plural(seeds, "seed") if seeds > 1 else "those rounds"
    others = measures.of_result(result)[1:]
    heads = [
        "anchors",
        "ratio",
        first.label,
        "best round",
        *(f"test {measure.label}" for measure in others),
        "live",
        "kB up",
    ]
    if paired := seeds > 1 and "none" in kinds and len(kinds) > 1:
        heads.insert(3, "minus none")
    caption = (
        f"test {' and '.join(measure.name.replace('_', ' ') for measure in (first, *others))} of the server's model, "
        f"mean of the last {plural(last, 'round')} ± std over {over}"
    )
    columns = ["minus none: difference, paired by seed"] * paired + [
        "live: share of weights that train in a round",
        "kB up: what a client sends in a round",
    ]
    table = Table(caption, heads, [_row(result, kind, last, paired) for kind in kinds])
    tables = [table, *report_clients.tables(result, kinds), *report_costs.tables(result, kinds)]
    figures += report_costs.figures(result, kinds, COLORS, labels) + report_clients.figures(result)
    return Description("Federation", heading, generic.lead, generic.numbers, [*tables, *generic.tables[1:], *figures],
                       remarks=["; ".join(columns)], notes=_privacy(result) + _turnout(runs, config["rounds"]))  # fmt: skip


def _live(runs: list[Result]) -> float:
    """The mean share of weights that trained, of the rounds in which any did: not of those after a stop, nor of those without a reply."""
    rounds_of = [(run["live"], run["taken"] if "taken" in run else run["live"]) for run in runs]
    shares = [live for columns in rounds_of for live, taken in zip(*columns, strict=True) if taken]
    return float(np.mean(shares)) if shares else 0.0


USEFUL = 10.0
"""An epsilon above which nobody should speak of privacy."""


def _privacy(result: Result) -> list[str]:
    """What is known of a private federation."""
    if "privacy" not in result:
        return []
    spent = result["privacy"]
    word = f"{spent['epsilon']:.3g}" if spent["epsilon"] is not None else "without bound"
    said = f"privacy of clients: epsilon {word} at delta {spent['delta']:g} after {plural(spent['rounds'], 'round')}"
    if spent["epsilon"] is None or spent["epsilon"] > USEFUL:
        said += f"; above {USEFUL:g} that is no protection: it takes more clients of which fewer take part in a round, or more noise"
    return [said]


def _row(result: Result, kind: str, last: int, paired: bool) -> list[str]:
    config = result["config"]
    live = _live([run for run in result["runs"] if run["anchors"] == kind])
    upload = live * result["parameters"] * 4 / 1000 * (2 if config["algorithm"] == "scaffold" else 1)
    first, *others = measures.of_result(result)
    means = [finite_mean_std(mean_std(values[-last:]).mean for values in column(result, kind, measure.name)).mean
             for measure in others]  # fmt: skip
    choose = max if first.larger_is_better else min
    finite = [[value for value in values if value is not None] for values in column(result, kind, first.name)]
    best = finite_mean_std(choose(values) for values in finite if values).mean
    gain = [_gain(result, kind)] if paired else []
    return [kind, "-" if kind == "none" else f"{config['ratio']:g}", score_text(result, kind), *gain, format_number(best),
            *map(format_number, means), f"{live:.0%}", f"{upload:,.0f}"]  # fmt: skip


def _gain(result: Result, kind: str) -> str:
    """What anchors add to the score, mean ± standard deviation of the differences by seed."""
    if kind == "none" or not all(
        any(learned(run) for run in result["runs"] if run["anchors"] == name) for name in (kind, "none")
    ):
        return "-"
    pairs = zip(column(result, kind, "score"), column(result, "none", "score"), strict=True)
    return format_mean_std(finite_mean_std(number(score) - number(base) for score, base in pairs), sign=True)


NAMED = 8
"""Of more clients whose replies were refused it is said how many."""


def _turnout(runs: list[Result], rounds: int) -> list[str]:
    """The runs that diverged, the clients whose replies were refused, and how many were missing or late."""
    notes = [f"{run['anchors']} seed {run['seed']}: diverged, from round {run['diverged_in_round']} on its test loss is not finite, or "
             "grew while accuracy was lost, or its model is no better than guessing"
             + (", and it is left out of the means" if run["score"] is None else "")
             for run in runs if run.get("diverged_in_round") is not None]  # fmt: skip
    notes += [f"{run['anchors']} seed {run['seed']}: stopped after round {run['stopped_after_round']}, "
              + ("its accuracy grew no more" if run.get("stalled") else "nothing was learned any more")
              for run in runs if run.get("stopped_after_round") is not None]  # fmt: skip
    notes += [f"{run['anchors']} seed {run['seed']}: in no round its model was better than guessing"
              for run in runs if run.get("no_better_than_guessing")]  # fmt: skip
    total: dict[str, dict[int, int]] = {"refused": {}, "dropped": {}, "late": {}}
    for run in runs:
        for what, counts in run["turnout"].items():
            for client, count in counts.items():
                total[what][int(client)] = total[what].get(int(client), 0) + count
    refused = sorted(total["refused"].items())
    if len(refused) > NAMED:
        notes.append(
            f"{_replies(sum(total['refused'].values()))} refused, of {len(refused)} clients (reasons in metrics.jsonl)"
        )
    else:
        notes += [f"client {client}: {_replies(count)} refused of {plural(rounds * len(runs), 'round')} (reasons in metrics.jsonl)"
                  for client, count in refused]  # fmt: skip
    for what, words in (("dropped", "never came"), ("late", "came from stragglers")):
        if total[what]:
            notes.append(f"{_replies(sum(total[what].values()))} {words}, of {plural(len(total[what]), 'client')}")
    return notes


def _replies(count: int) -> str:
    return "1 reply" if count == 1 else f"{count} replies"

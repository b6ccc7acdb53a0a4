"""What `tna federate` shows of its clients: their accuracies on held-out examples of their own, and who has which examples."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import Counts, Figure
from tna_jax.programs.reports.rounds import LAST, last_means
from tna_jax.programs.reports.statistics import finite_mean_std, format_mean_std, mean_std

Result = dict[str, Any]
MEASURES = ("client_mean", "client_worst", "client_std")


def tables(result: Result, kinds: list[str]) -> list[Table]:
    """Returns the clients' accuracies by mask schedule; none where they were not measured."""
    runs = [run for run in result["runs"] if any(value is not None for value in run.get("client_mean", []))]
    if not runs:
        return []
    last = min(LAST, result["config"]["rounds"])
    personal = result["config"].get("personalize", "none")
    scored = personal != "none" and any("personalized" in run["by_client"] for run in runs)
    heads = ["anchors", "mean", "worst tenth", "spread (std)"]
    heads += [f"own {personal}: mean", "worst tenth"] if scored else []
    rows = []
    for kind in kinds:
        of_kind = [run for run in runs if run["anchors"] == kind]
        by_round = [
            {"round": i, "seed": run["seed"], **{name: run[name][i] for name in MEASURES}}
            for run in of_kind
            for i in range(len(run["client_mean"]))
        ]
        cells = [format_mean_std(finite_mean_std(last_means(by_round, name))) for name in MEASURES]
        if scored:
            own = [run["by_client"]["personalized"] for run in of_kind]
            cells += [format_mean_std(mean_std([scores[name] for scores in own])) for name in ("mean", "worst")]
        rows.append([kind, *cells])
    held = (
        "on a share of its own examples" if result["config"].get("held_out") else "on test examples of its own classes"
    )
    return [Table(f"accuracy of each client {held}, mean of the last {plural(last, 'round')}", heads, rows)]


def figures(result: Result) -> list[Figure]:
    """Returns the picture of the partition."""
    if "partition" not in result:
        return []
    counts = result["partition"]["counts"]
    return [
        Counts(
            title=f"training examples by client and class, seed {result['partition']['seed']}",
            alt=f"Table of {len(counts)} clients by {len(counts[0])} classes, dark where a client has many examples.",
            rows=[str(i) for i in range(len(counts))], columns=[str(i) for i in range(len(counts[0]))], values=counts,
            what="training examples",
        )
    ]  # fmt: skip

"""What `tna federate` shows of its costs: bytes and local steps up to an accuracy, and accuracy by bytes."""

import math
from typing import Any

import numpy as np

from tna_jax.federated.costs import first_round
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.figures import Curve, Curves, Figure
from tna_jax.programs.reports.rounds import styled
from tna_jax.programs.reports.statistics import format_mean_std, mean_std, mean_std_columns, number

Result = dict[str, Any]
MB = 1e6
COLUMNS = ("bytes_up", "bytes_down", "local_steps")


def target(result: Result) -> float:
    """Returns the accuracy up to which costs are counted: the one asked for, else one that every run reaches, in whole percents.

    Runs that diverged at once or learned nothing do not count; NaN if there are no others.
    """
    asked = result["config"].get("target_accuracy")
    if asked is not None:
        return float(asked)
    finite = [
        [value for value in run["accuracy"] if value is not None]
        for run in result["runs"]
        if any(run.get("taken", [True]))
    ]
    best = [max(values) for values in finite if values]
    return math.floor(100 * min(best)) / 100 if best else math.nan


def tables(result: Result, kinds: list[str]) -> list[Table]:
    """Returns what it took to reach the accuracy, by mask schedule; none where costs were not counted."""
    if not all("bytes_up" in run for run in result["runs"]) or "metrics" in result:
        return []
    aim, rows = target(result), []
    if math.isnan(aim):
        return []
    for kind in kinds:
        spent = [_up_to(run, aim) for run in result["runs"] if run["anchors"] == kind]
        reached = [values for values in spent if values is not None]
        cells = [
            format_mean_std(mean_std(column), digits)
            for column, digits in zip(zip(*reached, strict=True), (1, 2, 2, 0) if reached else (), strict=True)
        ]
        missed = len(spent) - len(reached)
        rows.append([kind, *(cells or ["-"] * 4), f"{missed} of {len(spent)}" if missed else "0"])
    heads = ["anchors", "rounds", "MB up", "MB down", "local steps", "not reached"]
    return [Table(f"up to test accuracy {aim:g}, all clients together", heads, rows)]


def _up_to(run: Result, aim: float) -> tuple[float, ...] | None:
    """Rounds, MB up and down, and steps of a run until the accuracy; `None` if it never reaches it."""
    at = first_round(np.array([number(value) for value in run["accuracy"]]), aim)
    if at is None:
        return None
    up, down, steps = (float(np.sum(run[name][: at + 1])) for name in COLUMNS)
    return at + 1, up / MB, down / MB, steps


def figures(result: Result, kinds: list[str], colors: dict[str, str], labels: dict[str, str]) -> list[Figure]:
    """Returns accuracy by bytes that clients sent, means over seeds."""
    if not all("bytes_up" in run for run in result["runs"]) or "metrics" in result:
        return []
    curves = []
    for kind in kinds:
        runs = [run for run in result["runs"] if run["anchors"] == kind]
        sent = np.cumsum([run["bytes_up"] for run in runs], axis=1).mean(0) / MB
        curves.append(Curve.of(kind, list(map(float, sent)), mean_std_columns([run["accuracy"] for run in runs])))
    figure = Curves(
        title="Accuracy by what clients sent", alt=f"Line chart of accuracy by megabytes up for {', '.join(kinds)}.", curves=curves,
        xaxis="MB up, all clients", yaxis="test accuracy of the server's model",
    )  # fmt: skip
    return [styled(figure, colors, labels)]

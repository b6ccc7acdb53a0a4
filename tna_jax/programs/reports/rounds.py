"""A report's part on anything that goes on in rounds, such as a federation.

The results file holds `rounds`, a list of objects, one for each round of each run (`federate.json` holds `runs` instead, each with a
list for each number; the log of a federation that is going on has the objects as its lines):

    {"rounds": [{"round": 0, "accuracy": 0.31, "loss": 2.0, "algorithm": "fedavg", "seed": 0, ...}, ...]}

`round` is an integer; every other number is a curve, but for `seed`, over which means are taken. Text (`algorithm`, `method`,
`schedule`) and `ratio` tell runs apart: each combination is a line.
"""

import dataclasses
from typing import Any

import numpy as np

from tna_jax.programs.reports.blocks import Figure, Number, Overlay, Part, Table, mean_std, number, spread
from tna_jax.programs.reports.charts import Curve, curves

ABOUT = ("round", "seed", "step", "seconds", "learning_rate", "split", "sampled", "dropped", "stragglers", "refused")
"""What is no curve of its own."""
NAMES = {"live": "share of trainable weights", "taken": "replies taken", "train_loss": "training loss"}
LAST = 5
"""The score of a run is the mean over its last rounds (the first author's public code takes five)."""
TELLING = ("ratio", "clients", "alpha")
"""Numbers that tell runs apart rather than being measured."""


def federate(result: dict[str, Any], split: str) -> Part:
    """What `tna federate` found: a list for each number of a run, as rows."""
    rows = []
    for run in result["runs"]:
        columns = {name: values for name, values in run.items() if isinstance(values, list)}
        told = {name: value for name, value in run.items() if isinstance(value, str) or name == "seed"}
        rows += [{"round": i + 1, **told, **{name: values[i] for name, values in columns.items()}}
                 for i in range(len(columns["accuracy"]))]  # fmt: skip
    made = part({"rounds": rows}, split)
    late = {
        what: sum(sum(run["turnout"][what].values()) for run in result["runs"])
        for what in ("dropped", "late", "refused")
    }
    missing = [f"{count} replies {what}" for what, count in late.items() if count]
    notes = [f"Of {len(rows)} rounds: {', '.join(missing)}."] if missing else []
    return dataclasses.replace(made, title="Federation", notes=notes)


def part(result: dict[str, Any], split: str) -> Part:
    """The curves of all rounds, and the mean of the last ones."""
    rows = result["rounds"]
    names = list(dict.fromkeys(key for row in rows for key in row))
    telling = [name for name in names if name in TELLING or any(isinstance(row.get(name), str) for row in rows)]
    telling = [name for name in telling if len({row.get(name) for row in rows}) > 1]
    measures = [
        name for name in names
        if name not in (*ABOUT, *TELLING) and name not in telling
        and ((any(_numeric(row.get(name)) for row in rows) and name in ("accuracy", "loss")) or _varies(rows, name))
    ]  # fmt: skip
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(" ".join(_word(name, row.get(name)) for name in telling) or "all clients", []).append(row)
    blocks: list[Table | Figure] = [_scores(groups, measures)]
    overlays = []
    for measure in measures:
        found = [_curve(name, group, measure) for name, group in groups.items()]
        title = f"{_title(measure)} by round".capitalize()
        blocks.append(curves(title, f"Line chart of {measure} by round for {', '.join(groups)}.", found, "round",
                             _title(measure)))  # fmt: skip
        for name, curve in zip(groups, found, strict=True):
            chart = title if len(groups) == 1 else f"{title}, {name}"
            overlays.append(Overlay(chart, "round", _title(measure), curve.x, curve.y, curve.spread))
    numbers = [
        Number(f"accuracy, {name}" if len(groups) > 1 else "accuracy", spread(_last(group, "accuracy")), f"mean of the last {LAST} rounds")
        for name, group in groups.items()
        if "accuracy" in measures
    ]  # fmt: skip
    seeds = len({row.get("seed", 0) for row in rows})
    rounds = len({row["round"] for row in rows})
    lead = f"{rounds} rounds, {seeds} seed{'s. Bands are one standard deviation over seeds' if seeds > 1 else ''}."
    return Part("Rounds", lead, numbers, blocks, overlays)


def _title(measure: str) -> str:
    return NAMES.get(measure, measure.replace("_", " "))


def _varies(rows: list[dict[str, Any]], name: str) -> bool:
    """Whether there is anything to draw: a number that is always the same is none."""
    return len({row.get(name) for row in rows if _numeric(row.get(name))}) > 1


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(name: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{name} {value:g}" if _numeric(value) else f"{name} {value}"


def _curve(name: str, group: list[dict[str, Any]], measure: str) -> Curve:
    by_round: dict[int, list[float]] = {}
    for row in group:
        by_round.setdefault(row["round"], []).append(number(row.get(measure)))
    at = sorted(by_round)
    found = [mean_std(by_round[i]) for i in at]
    many = any(std is not None for _, std in found)
    y = [mean if np.isfinite(mean) else None for mean, _ in found]
    return Curve(name, [float(i) for i in at], y, [std for _, std in found] if many else None)


def _last(group: list[dict[str, Any]], measure: str) -> list[float]:
    """The mean over the last rounds of each seed."""
    seeds: dict[Any, list[dict[str, Any]]] = {}
    for row in group:
        seeds.setdefault(row.get("seed", 0), []).append(row)
    ends = [sorted(rows, key=lambda row: row["round"])[-LAST:] for rows in seeds.values()]
    return [mean_std([number(row.get(measure)) for row in rows])[0] for rows in ends]


def _scores(groups: dict[str, list[dict[str, Any]]], measures: list[str]) -> Table:
    rows = [[name, *(spread(_last(group, measure)) for measure in measures)] for name, group in groups.items()]
    caption = f"mean of the last {LAST} rounds ± standard deviation over seeds"
    return Table(caption, ["", *(_title(name) for name in measures)], rows)

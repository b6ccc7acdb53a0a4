"""The description of anything that goes on in rounds, such as a federation.

The results file holds `rounds`, a list of objects, one for each round of each run (`tna federate` makes them of its runs; the log
of a federation that is going on has the objects as its lines):

    {"rounds": [{"round": 0, "accuracy": 0.31, "loss": 2.0, "algorithm": "fedavg", "seed": 0, ...}, ...]}

`round` is an integer; every other number is a curve, but for `seed`, over which means are taken. Text (`algorithm`, `method`,
`schedule`) and `ratio` tell runs apart: each combination is a line.
"""

import dataclasses
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.statistics import finite_mean_std, format_spread, mean_std_columns

Row = dict[str, Any]
ABOUT = ("round", "seed", "step", "seconds", "learning_rate", "split", "sampled", "dropped", "stragglers", "refused")
"""What is no curve of its own."""
NAMES = {"live": "share of trainable weights", "taken": "replies taken", "train_loss": "training loss",
         "client_mean": "clients' accuracy, mean", "client_worst": "clients' accuracy, worst tenth",
         "client_std": "clients' accuracy, spread", "bytes_up": "bytes up", "bytes_down": "bytes down"}  # fmt: skip
LAST = 5
"""The score of a run is the mean over so many last rounds, as in the first author's public code."""
TELLING = ("ratio", "clients", "alpha")
"""Numbers that tell runs apart rather than being measured."""


def describe(result: Row, split: str = "test", by: tuple[str, ...] | None = None) -> Description:
    """Describes the curves of all rounds, and the mean of the last ones.

    Args:
      result: the results file.
      split: is not used: the file does not say what its numbers are of.
      by: what tells runs apart; default: every text and every number of `TELLING` that differs.
    """
    rows = result["rounds"]
    names = list(dict.fromkeys(key for row in rows for key in row))
    telling = [name for name in names if name in TELLING or any(isinstance(row.get(name), str) for row in rows)]
    telling = [name for name in telling if len({row.get(name) for row in rows}) > 1]
    measures = [name for name in names if name not in (*ABOUT, *TELLING, *telling, *(by or ())) and _drawn(rows, name)]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = " ".join(_word(name, row.get(name)) for name in by or telling)
        groups.setdefault(name or "all clients", []).append(row)
    figures = [_figure(groups, measure) for measure in measures]
    numbers = [Number(f"accuracy, {name}" if len(groups) > 1 else "accuracy", format_spread(last_means(group, "accuracy")),
                      f"mean of the last {LAST} rounds")
               for name, group in groups.items() if "accuracy" in measures]  # fmt: skip
    scores = [[name, *(format_spread(last_means(group, measure)) for measure in measures)] for name, group in groups.items()]  # fmt: skip
    table = Table(
        f"mean of the last {LAST} rounds ± standard deviation over seeds", ["", *map(_title, measures)], scores
    )
    seeds, rounds = len({row.get("seed", 0) for row in rows}), len({row["round"] for row in rows})
    lead = f"{plural(rounds, 'round')}, {seeds} seed{'s. Bands are one standard deviation over seeds' if seeds > 1 else ''}."
    return Description("Rounds", lead=lead, numbers=numbers, blocks=[table, *figures])


def last_means(group: list[Row], measure: str) -> list[float]:
    """Returns the mean over the last rounds of each seed."""
    seeds: dict[Any, list[Row]] = {}
    for row in sorted(group, key=lambda row: row["round"]):
        seeds.setdefault(row.get("seed", 0), []).append(row)
    return [finite_mean_std(row.get(measure) for row in rows[-LAST:]).mean for rows in seeds.values()]


def curves_of(description: Description) -> list[Curves]:
    """Returns the figures of rounds."""
    return [figure for figure in description.figures if isinstance(figure, Curves)]


def styled(figure: Curves, colors: dict[str, str], labels: dict[str, str], **changes: Any) -> Curves:
    """Returns a figure with colors and labels for its groups by name."""
    curves = [dataclasses.replace(curve, color=colors.get(curve.group or curve.name, ""), label=labels.get(curve.name, ""))
              for curve in figure.curves]  # fmt: skip
    return dataclasses.replace(figure, curves=curves, **changes)


def _figure(groups: dict[str, list[Row]], measure: str) -> Curves:
    curves = [curve for name, group in groups.items() for curve in _curves(name, group, measure)]
    return Curves(
        title=f"{_title(measure)} by round".capitalize(), alt=f"Line chart of {measure} by round for {', '.join(groups)}.",
        curves=curves, xaxis="round", yaxis=_title(measure), compared=True, png=measure in ("accuracy", "loss"),
    )  # fmt: skip


def _curves(name: str, group: list[Row], measure: str) -> list[Curve]:
    """Every seed as a thin line, where there are several, and their mean."""
    seeds: dict[Any, dict[int, float | None]] = {}
    for row in group:
        seeds.setdefault(row.get("seed", 0), {})[row["round"]] = row.get(measure)
    rounds = sorted({row["round"] for row in group})
    lines = {seed: [values.get(i) for i in rounds] for seed, values in seeds.items()}
    x = [float(i) for i in rounds]
    thin = [Curve(f"{name}, seed {seed}", x, y, thin=True, group=name) for seed, y in lines.items() if len(lines) > 1]
    return [*thin, Curve.of(name, x, mean_std_columns(list(lines.values())))]


def _title(measure: str) -> str:
    return NAMES.get(measure, measure.replace("_", " "))


def _drawn(rows: list[Row], name: str) -> bool:
    """Whether there is anything to draw: a number that is always the same is none, but for accuracy and loss."""
    values = {row.get(name) for row in rows if _numeric(row.get(name))}
    return len(values) > (0 if name in ("accuracy", "loss") else 1)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _word(name: str, value: Any) -> str:
    return value if isinstance(value, str) else f"{name} {value:g}" if _numeric(value) else f"{name} {value}"

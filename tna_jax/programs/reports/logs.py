"""The description of a log of training, the `metrics.jsonl` of any run: the curves of its numbers."""

import json
from pathlib import Path
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Description, Number
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.measures import CLASSIFICATION, Measure
from tna_jax.programs.reports.statistics import format_number

MEASURES = ("accuracy", "loss")
ABOUT = ("step", "epoch", "wave", "diverged", "images_per_second")
"""What a line of metrics.jsonl says that is no curve of its own."""


def lines(file: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl, but for those that cannot be read: a run that goes on may be writing the last one."""
    readable = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            readable.append(value)
    return readable


def describe(
    logged: list[dict[str, Any]], minor: bool = False, measured: tuple[Measure, ...] = CLASSIFICATION
) -> Description:
    """Describes the curves of a run: each number that its lines have, by epoch, else by step, and a line for each wave.

    Args:
      logged: the lines of metrics.jsonl, one or more.
      minor: the run has results, which are its headline.
      measured: of the run's objective, which name its numbers.
    """
    labels = {measure.name: measure.label for measure in measured}
    unit = "epoch" if all("epoch" in line for line in logged) else "step"
    first = 1 if unit == "epoch" else 0
    waves: dict[int, list[dict[str, Any]]] = {}
    for line in logged:
        waves.setdefault(line.get("wave", 0), []).append(line)
    numeric = [name for name in dict.fromkeys(key for line in logged for key in line)
               if name not in ABOUT and any(isinstance(line.get(name), int | float) for line in logged)]  # fmt: skip
    marks = _diverged(logged, unit, first)
    figures = []
    for measure in sorted(numeric, key=lambda name: (*labels, name).index(name)):
        label = labels.get(measure, measure.replace("_", " "))
        title = f"Training {label}" if measure in labels else label.capitalize()
        curves = [Curve(f"wave {wave}" if len(waves) > 1 else f"training {label}",
                        [line[unit] + first for line in waves[wave]], [line.get(measure) for line in waves[wave]])
                  for wave in sorted(waves)]  # fmt: skip
        alt = f"Line chart of {title.lower()} by {unit}, mean over the models." + "".join(
            f" {text}." for _, text in marks
        )
        figures.append(Curves(title=title, alt=alt, curves=curves, xaxis=unit, yaxis=label, compared=True, marks=marks))
    last = logged[-1]
    numbers = [Number(f"training {labels[name]}, last epoch", format_number(last.get(name)),
                      f"after {plural(last[unit] + 1, unit)}", minor) for name in labels if name in last]  # fmt: skip
    return Description(
        "Training", lead="Mean over the models that train together, as logged after each epoch.", numbers=numbers,
        blocks=[*figures],
    )  # fmt: skip


def _diverged(logged: list[dict[str, Any]], unit: str, first: int) -> list[tuple[float, str]]:
    """Returns the first place at which each model's loss was not finite, with the models."""
    since: dict[int, float] = {}
    for line in logged:
        for model in line.get("diverged") or []:
            since.setdefault(model, line[unit] + first)
    places = sorted(set(since.values()))
    numbers = {place: [model for model in sorted(since) if since[model] == place] for place in places}
    return [(place, f"{plural(len(models), 'model')} diverged" if len(models) > 3 else
             f"model{'s' * (len(models) > 1)} {', '.join(map(str, models))} diverged") for place, models in numbers.items()]  # fmt: skip

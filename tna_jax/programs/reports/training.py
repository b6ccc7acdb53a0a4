"""A report's parts on training: the curves in `metrics.jsonl` of any run, and the models in `train.json`."""

import json
from pathlib import Path
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Figure, Number, Overlay, Part, Table, format_text, number, spread
from tna_jax.programs.reports.charts import Curve, curves

MEASURES = ("accuracy", "loss")
ABOUT = ("step", "epoch", "wave", "diverged", "images_per_second")
"""What a line of metrics.jsonl says that is no curve of its own."""


def lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that can be read: a run that is still going on may be writing the last one."""
    found = []
    for line in file.read_bytes().splitlines() if file.is_file() else []:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            found.append(value)
    return found


def part(logged: list[dict[str, Any]], minor: bool = False) -> Part:
    """The curves of a run: each number that its lines have, by epoch, else by step, and a line for each wave.

    Args:
      logged: the lines of metrics.jsonl, one or more; minor: the run has results, which are its headline.
    """
    waves = sorted({line.get("wave", 0) for line in logged})
    measures = [
        name
        for name in dict.fromkeys(key for line in logged for key in line)
        if name not in ABOUT and any(isinstance(line.get(name), int | float) for line in logged)
    ]
    at = "epoch" if all("epoch" in line for line in logged) else "step"
    blocks: list[Table | Figure] = []
    overlays = []
    for measure in sorted(
        measures, key=lambda name: (name not in MEASURES, MEASURES.index(name) if name in MEASURES else 0)
    ):
        found = []
        for wave in waves:
            chosen = [line for line in logged if line.get("wave", 0) == wave]
            name = f"wave {wave}" if len(waves) > 1 else f"training {measure}"
            found.append(
                Curve(name, [line[at] + (at == "epoch") for line in chosen], [line.get(measure) for line in chosen])
            )
        unit = "epoch" if at == "epoch" else "step"
        title = f"Training {measure}" if measure in MEASURES else measure.replace("_", " ").capitalize()
        blocks.append(curves(title, f"Line chart of {title.lower()} by {unit}, mean over the models.", found, unit,
                             measure.replace("_", " ")))  # fmt: skip
        overlays.append(Overlay(title, unit, measure.replace("_", " "), found[0].x, found[0].y))
    last = logged[-1]
    numbers = [
        Number(
            f"training {name}, last epoch",
            format_text(number(last.get(name))),
            f"after {plural(last[at] + 1, at)}",
            minor,
        )
        for name in MEASURES
        if name in last
    ]
    return Part(
        "Training", "Mean over the models that train together, as logged after each epoch.", numbers, blocks, overlays
    )


def models(result: dict[str, Any], split: str) -> Part:
    """What `tna train` left: every model on both splits."""
    columns = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
    rows = [
        [str(i), *(format_text(number(model[name])) for name in columns)] for i, model in enumerate(result["models"])
    ]
    means = [[number(model[name]) for model in result["models"]] for name in columns]
    rows.append(["mean ± std", *(spread(values) for values in means)])
    numbers = [
        Number(
            f"{split} {measure} of a model",
            spread(means[columns.index(f"{split}_{measure}")]),
            plural(len(rows) - 1, "model"),
            measure == "loss",
        )
        for measure in MEASURES
    ]
    notes = [
        f"Model {i} diverged in epoch {model['diverged_in_epoch']}."
        for i, model in enumerate(result["models"])
        if model["diverged_in_epoch"] is not None
    ]
    table = Table("every model", ["model", *(name.replace("_", " ") for name in columns)], rows)
    return Part("Models", f"{plural(len(rows) - 1, 'model')} with shared anchors.", numbers, [table], [], notes)

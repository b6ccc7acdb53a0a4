"""What `tna train` shows: every model on both splits."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.divergence import DIVERGED, format_finite, is_finite
from tna_jax.programs.reports.statistics import format_number
from tna_jax.programs.reports.wording import dataset_name, network_name


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the models."""
    models, measured = result["models"], measures.of_result(result)
    losses = {f"{part}_{measure.name}": f"{part}_loss" for part in ("test", "train") for measure in measured}
    rows = [
        [str(i), *(format_number(model[name]) if is_finite(model, loss) else DIVERGED for name, loss in losses.items())]
        for i, model in enumerate(models)
    ]
    spreads = {name: format_finite(models, name, loss) for name, loss in losses.items()}
    numbers = [Number(f"{split} {measure.label} of a model", spreads[f"{split}_{measure.name}"], plural(len(models), "model"),
                      measure != measured[0]) for measure in measured]  # fmt: skip
    notes = [f"Left out of the means: model {i}, which diverged in epoch {model['diverged_in_epoch']}."
             for i, model in enumerate(models) if model["diverged_in_epoch"] is not None]  # fmt: skip
    heads = ["model", *(f"{part} {measure.label}" for part in ("test", "train") for measure in measured)]
    table = Table("every model", heads, [*rows, ["mean ± std", *spreads.values()]])
    config = result["config"]
    heading = f"{dataset_name(config)}, {network_name(result)}, {plural(config['epochs'], 'epoch')}, mask ratio {config['ratio']:g}"
    return Description(
        "Models", heading, f"{plural(len(models), 'model')} with shared anchors.", numbers, [table], notes=notes
    )

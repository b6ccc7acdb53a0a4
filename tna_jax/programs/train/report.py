"""What `tna train` shows: every model on both splits."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.statistics import format_number, format_spread
from tna_jax.programs.reports.wording import network_name

COLUMNS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the models."""
    models = result["models"]
    rows = [[str(i), *(format_number(model[name]) for name in COLUMNS)] for i, model in enumerate(models)]
    spreads = {name: format_spread(model[name] for model in models) for name in COLUMNS}
    numbers = [Number(f"{split} {measure} of a model", spreads[f"{split}_{measure}"], plural(len(models), "model"),
                      measure == "loss") for measure in ("accuracy", "loss")]  # fmt: skip
    notes = [f"Model {i} diverged in epoch {model['diverged_in_epoch']}."
             for i, model in enumerate(models) if model["diverged_in_epoch"] is not None]  # fmt: skip
    table = Table("every model", ["model", *(name.replace("_", " ") for name in COLUMNS)],
                  [*rows, ["mean ± std", *spreads.values()]])  # fmt: skip
    config = result["config"]
    heading = f"{config['dataset']}, {network_name(result)}, {plural(config['epochs'], 'epoch')}, mask ratio {config['ratio']:g}"
    return Description(
        "Models", heading, f"{plural(len(models), 'model')} with shared anchors.", numbers, [table], notes=notes
    )

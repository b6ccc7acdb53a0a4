"""What `tna pretrain` shows: loss and accuracy over the epochs, and on the test examples."""

from typing import Any

from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.statistics import format_number
from tna_jax.programs.reports.wording import memory_use

UNITS = {"loss": "loss (nats)", "accuracy": "accuracy"}


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the training."""
    epochs, config, test = result["epochs"], result["config"], result["test"]
    chosen = sorted({round(i * (len(epochs) - 1) / 7) for i in range(8)})
    lines = [(str(epochs[i]["epoch"] + 1), epochs[i]) for i in chosen] + [("test", test)]
    rows = [[name, *(format_number(line[measure]) for measure in UNITS)] for name, line in lines]
    size = f"{config['model']} {config['width']}x{config['depth']}, {result['parameters']:,} parameters"
    return Description(
        "Pretraining", f"{result['what']}; {size}",
        numbers=[Number(f"test {measure}", format_number(test[measure])) for measure in UNITS],
        blocks=[Table("training examples while it ran, and the test examples at the end", ["epoch", *UNITS], rows),
                *(curves(result, measure) for measure in UNITS)],
        remarks=memory_use(result["provenance"]),
    )  # fmt: skip


def curves(result: dict[str, Any], measure: str) -> Curves:
    """Returns the figure of `loss` or `accuracy` of the training examples by epoch, that of the test examples as a line."""
    x = [float(line["epoch"] + 1) for line in result["epochs"]]
    training = Curve("training, while it ran", x, [line[measure] for line in result["epochs"]], color="c1")
    test = Curve("test, at the end", x, [result["test"][measure]] * len(x), color="c2", dash="dash")
    return Curves(title=measure.capitalize(), alt=f"Line chart of {measure} by epoch.", curves=[training, test], xaxis="epoch",
                  yaxis=UNITS[measure])  # fmt: skip

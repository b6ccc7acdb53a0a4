"""A report's part on `landscape.json`: loss and accuracy on the plane through three models."""

from typing import Any

from tna_jax.programs.reports.blocks import Figure, Number, Part, Table, format_text, number
from tna_jax.programs.reports.charts import contours


def part(result: dict[str, Any], split: str) -> Part:
    """What `tna landscape` found; it is always on test examples."""
    models, blocks = result["models"], []
    for measure in ("loss", "accuracy"):
        told = ", ".join(f"{model['name']} {format_text(number(model[measure]))}" for model in models)
        figure: Figure | Table = contours(
            f"Test {measure} on the plane", f"Contours of the test {measure} on the plane through three models: {told}.",
            result["x"], result["y"], result[measure], models, measure,
        )  # fmt: skip
        blocks.append(figure)
    numbers = [
        Number(f"test accuracy, {model['name']}", format_text(number(model["accuracy"])), minor=True)
        for model in models
    ]
    lead = (
        f"Every point is a network: the mixture of the three models that lies there. {result['examples']} test examples; "
        f"the models are {', '.join(f'{length:.3g}' for length in result['lengths'])} apart in their weights."
    )
    return Part("Landscape", lead, numbers, blocks)

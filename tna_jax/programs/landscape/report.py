"""What `tna landscape` shows: loss and accuracy on the plane through three models."""

from typing import Any

from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Contours, Point
from tna_jax.programs.reports.statistics import format_number, number


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the plane; it is always of test examples."""
    columns = ("x", "y", "loss", "accuracy")
    rows = [[model["name"], *(format_number(model[name]) for name in columns)] for model in result["models"]]
    numbers = [Number(f"test accuracy, {row[0]}", row[-1], minor=True) for row in rows]
    lead = (
        f"Every point is a network: the mixture of the three models that lies there. {result['examples']} test examples; "
        f"the models are {', '.join(f'{length:.3g}' for length in result['lengths'])} apart in their weights."
    )
    table = Table("test set, the three models", ["model", *columns], rows)
    return Description("Landscape", checkpoint_status.title(result), lead, numbers,
                       [table, *(plane(result, measure) for measure in ("loss", "accuracy"))])  # fmt: skip


def plane(result: dict[str, Any], measure: str) -> Contours:
    """Returns the figure of `loss` or `accuracy`."""
    points = [Point(model["name"], model["x"], model["y"], number(model[measure])) for model in result["models"]]
    values = ", ".join(f"{point.name} {format_number(point.value)}" for point in points)
    return Contours(
        title=f"Test {measure} on the plane",
        alt=f"Contours of the test {measure} on the plane through three models: {values}.",
        x=result["x"], y=result["y"], values=result[measure], points=points, measure=measure,
    )  # fmt: skip

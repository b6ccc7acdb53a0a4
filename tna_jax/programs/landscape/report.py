"""What `tna landscape` shows: loss and accuracy on the plane through three models."""

from typing import Any

from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Contours, Point
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import format_number, number


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the plane; it is always of test examples."""
    first, *_ = measures.of_result(result)
    measured = sorted(measures.of_result(result), key=lambda measure: measure.name != "loss")
    columns = ("x", "y", *(measure.name for measure in measured))
    marked = [*result["models"], *filter(None, [result.get("soup")])]
    rows = [[model["name"], *(format_number(model[name]) for name in columns)] for model in marked]
    numbers = [Number(f"test {first.label}, {row[0]}", row[columns.index(first.name) + 1], minor=True) for row in rows]
    lead = (
        f"Every point is a network: the mixture of the three models that lies there. {result['examples']} test examples; "
        f"the models are {', '.join(f'{length:.3g}' for length in result['lengths'])} apart in their weights."
    )
    table = Table(
        "test set, the three models and their average" if result.get("soup") else "test set, the three models",
        ["model", "x", "y", *(measure.label for measure in measured)],
        rows,
    )
    return Description("Landscape", checkpoint_status.title(result), lead, numbers,
                       [table, *(plane(result, measure) for measure in measured)])  # fmt: skip


def plane(result: dict[str, Any], measure: Measure) -> Contours:
    """Returns the figure of one measure."""
    marked = [*result["models"], *filter(None, [result.get("soup")])]
    points = [Point(model["name"], model["x"], model["y"], number(model[measure.name])) for model in marked]
    values = ", ".join(f"{point.name} {format_number(point.value)}" for point in points)
    return Contours(
        title=f"Test {measure.label} on the plane",
        alt=f"Contours of the test {measure.label} on the plane through three models, with the straight lines between them: {values}.",
        x=result["x"], y=result["y"], values=result[measure.name], points=points, measure=measure.label,
        larger_is_better=measure.larger_is_better, paths=[(0, 1), (1, 2), (0, 2)],
    )  # fmt: skip

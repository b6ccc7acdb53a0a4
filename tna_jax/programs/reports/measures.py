"""What a result measures, as its tables and axes name it: accuracy and loss, or the metrics of another objective."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tna_jax.objectives import Objective


class Measure(NamedTuple):
    """One metric of a result; rows hold it as `NAME_path`, `NAME_barrier` and so on."""

    name: str
    label: str
    """With its unit: `loss (nats a token)`."""
    larger_is_better: bool = False
    on_png: bool = True
    """Whether its path is drawn on the PNG too."""

    @property
    def title(self) -> str:
        """The label as a title begins."""
        return self.title_of("")

    def label_of(self, more: str) -> str:
        """Returns the label with words before its unit: `loss barrier (nats a token)`."""
        name, bracket, unit = self.label.partition(" (")
        return f"{name}{more}{bracket}{unit}"

    def title_of(self, more: str) -> str:
        """Returns that as a title begins."""
        return self.label_of(more)[:1].upper() + self.label_of(more)[1:]


ACCURACY, LOSS = Measure("accuracy", "accuracy", True), Measure("loss", "loss", on_png=False)
CLASSIFICATION = (ACCURACY, LOSS)


def of_objective(objective: "Objective") -> tuple[Measure, ...]:
    """Returns what is measured by an objective, the headline first; a metric that is the loss once more is left out."""
    if objective.classes:
        return CLASSIFICATION
    loss, *others = objective.all_metrics
    kept = [loss, *(metric for metric in others if not metric.unit or metric.unit != loss.unit)]
    return tuple(Measure(m.name, _label(m.name, m.unit), m.larger_is_better) for m in kept)


def _label(name: str, unit: str) -> str:
    words = name.replace("_", " ")
    return words if unit.lower() in ("", words.lower()) else f"{words} ({unit})"


def as_recorded(objective: "Objective") -> dict[str, Any]:
    """Returns what a results file says of them, under `metrics`; nothing for classification."""
    if objective.classes:
        return {}
    return {"metrics": [measure._asdict() for measure in of_objective(objective)]}


def of_result(result: dict[str, Any]) -> tuple[Measure, ...]:
    """Returns what a results file measures, the headline first."""
    recorded = result.get("metrics")
    return tuple(Measure(**entry) for entry in recorded) if recorded else CLASSIFICATION

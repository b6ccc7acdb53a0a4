"""Tables of the record and of averages of many: `python -m train record`, `python -m train papa`."""

from collections.abc import Callable
from typing import Any

from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown
from train import language_model, own_networks, papa, regression
from train.record import drawing


def record(case: str, why: bool = False, stage: int = -1) -> Callable[[dict[str, Any]], str]:
    """The record's rows of a case at one of its stages: what pairs reach, or `why`."""

    def table(result: dict[str, Any]) -> str:
        built = drawing.tables(result["cases"][case])[2 * stage :][int(why)]
        return markdown(built.heads, built.rows)

    return table


def record_claims(case: str, stage: int = -1) -> Callable[[dict[str, Any]], str]:
    """Paired differences of the loss barrier against W-Asym as published."""

    def table(result: dict[str, Any]) -> str:
        chosen = result["cases"][case]
        lines = [
            [chosen["labels"][name], str(n), f"{difference:+.4f}", f"{p:.2g}"]
            for name, n, difference, p in drawing.compared(chosen, drawing.stages(chosen)[stage])
        ]
        return markdown(["setting", "pairs", "loss barrier, less W-Asym's", "p (paired t-test)"], lines)

    return table


def record_prototype(result: dict[str, Any]) -> str:
    """The first prototype at full data: one pair a row, so without a spread."""
    lines = []
    for row in result["rows"]:
        test = row["final"]["test"]
        loss, accuracy = test["loss"], test["accuracy"]
        early = row["after_constant"]["test"]["loss"]
        ends = [(values[0] + values[-1]) / 2 for values in (loss, accuracy, early)]
        numbers = (ends[0], ends[1], loss[2], accuracy[2], early[2] - ends[2], loss[2] - ends[0], ends[1] - accuracy[2])
        matched = row["matching"] or {"moved": None}
        rest = (row["beta_mean"], row["trained_cosine"], matched["moved"])
        lines.append([row["label"], *(f"{n:.3f}" for n in numbers), *("–" if n is None else f"{n:g}" for n in rest)])
    heads = ["setting", "ends: loss", "accuracy", "midpoint: loss", "accuracy", "loss barrier, before the rate falls", "at the end",
             "accuracy barrier", "beta", "cosine of the trained parts", "units moved by matching, of 448"]  # fmt: skip
    return markdown(heads, lines)


def own(example: own_networks.Example) -> Callable[[dict[str, Any]], str]:
    """Pairs of networks of a user's own: kinds of initialization and of anchors."""

    def table(result: dict[str, Any]) -> str:
        built = own_networks.rows(example, result)
        return markdown(["initialization", *built.heads[1:]], built.rows)

    return table


def many(measure: str) -> Callable[[dict[str, Any]], str]:
    """Averages of N networks: `accuracy` or `loss`."""

    def table(result: dict[str, Any]) -> str:
        built = papa.tables(result)[("accuracy", "loss").index(measure)]
        return markdown(built.heads, built.rows)

    return table


TABLES: Tables = {
    "record_mlp": ("record.json", record("mlp")),
    "record_mlp_why": ("record.json", record("mlp", why=True)),
    "record_mlp_small": ("record.json", record("mlp_small")),
    "record_mlp_small_why": ("record.json", record("mlp_small", why=True)),
    "record_mlp_small_claims": ("record.json", record_claims("mlp_small")),
    "record_resnet20_small_claims": ("record.json", record_claims("resnet20_small")),
    "record_vit_small": ("record.json", record("vit_small")),
    "record_vit_small_why": ("record.json", record("vit_small", why=True)),
    "record_vit_small_claims": ("record.json", record_claims("vit_small")),
    "record_resnet20_small": ("record.json", record("resnet20_small")),
    "record_resnet20_small_why": ("record.json", record("resnet20_small", why=True)),
    "own_language_model": ("language_model.json", own(language_model.EXAMPLE)),
    "own_regression": ("regression.json", own(regression.EXAMPLE)),
    "papa_accuracy": ("papa.json", many("accuracy")),
    "papa_loss": ("papa.json", many("loss")),
    "record_prototype": ("record_prototype.json", record_prototype),
}
"""By the name in the page: the results, and what makes the table of them."""

"""What `tna fuse` shows: every fusion on both splits, and the barriers between all pairs."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Dot, Dots, Matrix
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import format_mean_std, format_number, format_spread, number

SPLITS = ("test", "train")
COLORS = {
    "uniform soup": "c1",
    "greedy soup": "c1",
    "logit ensemble": "c5",
    "best single": "muted",
    "mean of members": "muted",
}
MERGE_COLOR = "c2"


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the fusions; both splits are in the table, the one asked for first."""
    fusions: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        fusions.setdefault(row["fusion"], {})[row["split"]] = row
    count, order = len(result["models"]), sorted(SPLITS, key=lambda name: name != split)

    def pair(row: dict[str, Any], measure: str) -> list[float | None]:
        return [number(row[measure]), row.get(f"{measure}_std")]

    measured = measures.of_result(result)
    names, first = [measure.name for measure in measured], measured[0]
    cells = {name: [format_mean_std(pair(both[s], measure)) for s in order for measure in names]
             for name, both in fusions.items()}  # fmt: skip
    rows = [
        [name, str(len(both[split].get("models", result["models"]))), *cells[name]] for name, both in fusions.items()
    ]
    heads = ["fusion", "models", *(f"{s} {measure.label}" for s in order for measure in measured)]
    numbers = [Number(f"{first.label}, {name}", cells[name][0], minor=name in ("mean of members", "logit ensemble"))
               for name in fusions]  # fmt: skip
    barriers = {(row["pair"][0], row["pair"][1]): number(row[f"{first.name}_barrier"])
                for row in result["pairs"] if row["split"] == split}  # fmt: skip
    barrier = first.label_of(" barrier")
    pairs, spread = plural(len(barriers), "pair"), format_spread(barriers.values())
    numbers.append(Number(f"{barrier}, models to fuse", spread, pairs, True))
    largest = format_number(max(barriers.values(), default=float("nan")))
    remarks = [f"{split} {barrier}, {pairs}: {spread}, largest {largest}", *_matching(result)]
    dots = Dots(
        title=f"{split.capitalize()} {first.label} of each fusion",
        alt=f"Dot chart of the {split} {first.label}: {', '.join(f'{name} {texts[0]}' for name, texts in cells.items())}.",
        dots=[Dot(name, number(both[split][first.name]), both[split].get(f"{first.name}_std"),
                  list(map(number, both[split].get(f"member_{first.name}", ()))),
                  COLORS.get(name, MERGE_COLOR)) for name, both in fusions.items()],
        what=f"{split} {first.label}", singles="the models",
    )  # fmt: skip
    matrix = Matrix(title=f"{first.title_of(' barrier')} of each pair", alt=f"Matrix of the {split} {first.label_of(' barriers')} between {count} models.",
                    names=[str(i) for i in range(count)], values=barriers, what=barrier)  # fmt: skip
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names).replace("_", " ")
    table = Table(f"{listed} of each fusion", heads, rows)
    merges = [merging_table(result, first, fusions["mean of members"], split)] if result.get("merges") else []
    remarks += _merging(result)
    return Description("Fusions", checkpoint_status.title(result), _lead(result), numbers, [table, *merges, dots, matrix],
                       remarks=remarks)  # fmt: skip


def merging_table(result: dict[str, Any], measure: Measure, ends: dict[str, dict[str, Any]], split: str) -> Table:
    """Returns the merging methods with the options that were chosen, and by what.

    Args:
      result: with `merges`.
      measure: the headline, by which options are chosen.
      ends: the mean of the members, by split.
      split: that is shown.
    """
    name = measure.name
    mean = format_number(number(ends[split][name]))
    rows = []
    for merge in result["merges"]["methods"]:
        options = ", ".join(f"{key} {_short(value)}" for key, value in merge["shown"].items())
        scores = [format_number(number(merge[of][name])) for of in ("held_out", split)]
        rows.append([merge["method"], options, *scores, mean])
    heads = ["method", "options", f"held-out {measure.label}", f"{split} {measure.label}", "ends' mean"]
    return Table(f"Merging methods, options chosen on {_held_out(result)}", heads, rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _held_out(result: dict[str, Any]) -> str:
    held = result["held_out"]
    return f"{held['examples']} training examples {'not seen' if held['unseen_in_training'] else 'seen'} in training"


def _merging(result: dict[str, Any]) -> list[str]:
    if not result.get("merges"):
        return []
    merges = result["merges"]
    tried = sum(len(merge["tried"]) for merge in merges["methods"])
    lines = [f"merging: {plural(tried, 'combination')} of options scored on held-out examples, none on the test set"]
    if merges["base"] is not None:
        lines.append(f"base of task vectors: {merges['base']}")
    equal = {merge["shared_entries"] for merge in merges["methods"]}
    counts = " or ".join(f"{count:,}" for count in sorted(equal))
    return [
        *lines,
        f"anchors: {counts} entries are equal in all models, and bit for bit in every merge{' before REPAIR' * result['options']['repair']}",
    ]


def _lead(result: dict[str, Any]) -> str:
    options = result["options"]
    after = [f"{options['matching']} matching"] if options["matching"] != "none" else []
    after += ["REPAIR"] if options["repair"] else []
    return (
        f"{len(result['models'])} models made one{' after ' + ' and '.join(after) if after else ''}. The best single model and "
        f"the greedy soup were chosen on {_held_out(result)}."
    )


def _matching(result: dict[str, Any]) -> list[str]:
    if result.get("matched") is None:
        return []
    total = {
        key: sum(model[key] for model in result["matched"]["models"]) for key in ("assignments", "moving", "moved")
    }
    return [f"matching: {total['assignments']} linear assignments, of which {total['moving']} moved a unit; {total['moved']} "
            "units moved in all"]  # fmt: skip

"""What `tna fuse` shows: every fusion on both splits, and the paths and barriers between all pairs."""

from collections.abc import Sequence
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.divergence import is_finite
from tna_jax.programs.reports.figures import Dot, Dots, Figure, Matrix
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import REPAIRED, Kinds, by_kind, chance, kind_paths, kind_table
from tna_jax.programs.reports.statistics import (
    finite_mean_std,
    format_mean_std,
    format_number,
    format_spread,
    number,
    standard_error,
)

SPLITS = ("test", "train")
COLORS = {
    "uniform soup": "c1",
    "greedy soup": "c1",
    "logit ensemble": "c5",
    "best single": "muted",
    "mean of members": "muted",
}
MERGE_COLOR = "c2"
MEMBERS = "mean of members"
Fusions = dict[str, dict[str, dict[str, Any]]]
"""Rows by fusion and split."""


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the fusions; both splits are in the table, the one asked for first."""
    fusions: Fusions = {}
    for row in result["rows"]:
        fusions.setdefault(row["fusion"], {})[row["split"]] = row
    measured = measures.of_result(result)
    first, kinds = measured[0], pairs_by_kind(result, split)
    cells = {name: format_mean_std(_pair(both[split], first.name)) for name, both in fusions.items()}
    numbers = [Number(f"{first.label}, {name}", text, minor=name in (MEMBERS, "logit ensemble")) for name, text in cells.items()]  # fmt: skip
    barrier, remarks = first.label_of(" barrier"), []
    for kind, rows in kinds.items():
        values = [number(row[f"{first.name}_barrier"]) for row in rows]
        repaired = _with_repair(kind)
        pairs, spread = plural(len(values), "pair"), format_spread(values)
        numbers.append(Number(f"{barrier}, models to fuse{repaired}", spread, pairs, True))
        largest = format_number(max(values, default=float("nan")))
        remarks.append(f"{split} {barrier}{repaired}, {pairs}: {spread}, largest {largest}")
    tables = [_fusions_table(fusions, result, measured, split)]
    tables += [merging_table(result, first, fusions[MEMBERS], split)] if result.get("merges") else []
    figures: list[Figure] = [_dots(fusions, measure, split) for measure in measured]
    if "alphas" in result:
        caption = f"paths between pairs, {split} set, mean ± standard deviation over pairs"
        tables.append(kind_table(caption, result["alphas"], kinds, measured))
        figures += [
            kind_paths(result["alphas"], kinds, _colors(kinds), measure, split, compared=False) for measure in measured
        ]
    figures += [
        _matrix(rows, measure, kinds, result, split, _with_repair(kind))
        for kind, rows in kinds.items()
        for measure in measured
        if f"{measure.name}_barrier" in rows[0]
    ]
    remarks += [*_matching(result), *_merging(result), *_ends(result)]
    bad = [name for name, both in fusions.items() if not is_finite(both[split])]
    notes = [f"Without a number, as the loss is not finite: {', '.join(bad)}."] if bad else []
    return Description("Fusions", checkpoint_status.title(result), _lead(result), numbers, [*tables, *figures],
                       remarks=remarks, notes=notes)  # fmt: skip


def pairs_by_kind(result: dict[str, Any], split: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of the pairs by kind of path: as they are, and after REPAIR; files of before kinds were kept have one."""
    return by_kind([{"kind": "", **row} for row in result["pairs"]], split)


def _pair(row: dict[str, Any], measure: str) -> list[float | None]:
    """Mean and spread of a fusion; none of one whose loss is not finite, for which no example counts as correct."""
    return [number(row[measure]), row.get(f"{measure}_std")] if is_finite(row) else [None, None]


def _fusions_table(fusions: Fusions, result: dict[str, Any], measured: Sequence[Measure], split: str) -> Table:
    """All fusions by all measures, on both splits."""
    order, names = sorted(SPLITS, key=lambda name: name != split), [measure.name for measure in measured]
    rows = [
        [name, str(len(both[split].get("models", result["models"]))),
         *(format_mean_std(_pair(both[of], measure)) for of in order for measure in names)]
        for name, both in fusions.items()
    ]  # fmt: skip
    heads = ["fusion", "models", *(f"{of} {measure.label}" for of in order for measure in measured)]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names).replace("_", " ")
    return Table(f"{listed} of each fusion", heads, rows)


def _dots(fusions: Fusions, measure: Measure, split: str) -> Dots:
    """Every fusion by one measure; accuracies with what chance makes of them."""
    name, rows = measure.name, {fusion: both[split] for fusion, both in fusions.items()}
    error = None
    if name == "accuracy":
        error = standard_error(number(rows[MEMBERS][name]), rows[MEMBERS]["examples"])
    texts = ", ".join(f"{fusion} {format_mean_std(_pair(row, name))}" for fusion, row in rows.items())
    dots = []
    for fusion, row in rows.items():
        singles = list(map(number, row.get(f"member_{name}", ())))
        spread = (
            row.get(f"{name}_std")
            if singles or error is None
            else 2 * standard_error(number(row[name]), row["examples"])
        )
        dots.append(Dot(fusion, number(_pair(row, name)[0]), spread, singles, COLORS.get(fusion, MERGE_COLOR)))
    return Dots(
        title=f"{split.capitalize()} {measure.label} of each fusion", alt=f"Dot chart of the {split} {measure.label}: {texts}.", dots=dots,
        what=f"{split} {measure.label}", singles="the models" if any(dot.singles for dot in dots) else "",
        bars=f"± 2 standard errors of {rows[MEMBERS]['examples']:,} examples" if error is not None else "",
        least=8 * error if error is not None else 0.2 * abs(number(rows[MEMBERS][name])),
    )  # fmt: skip


def _matrix(
    rows: list[dict[str, Any]], measure: Measure, kinds: Kinds, result: dict[str, Any], split: str, repaired: str
) -> Matrix:
    """The barrier of each pair by one measure, in the same colors with REPAIR and without."""
    name, count = f"{measure.name}_barrier", len(result["models"])
    values = {(row["pair"][0], row["pair"][1]): number(row[name]) for row in rows}
    return Matrix(
        title=f"{measure.title_of(' barrier')} of each pair{repaired}",
        alt=f"Matrix of the {split} {measure.label_of(' barriers')} between {count} models{repaired}.",
        names=[str(i) for i in range(count)], values=values, what=measure.label_of(" barrier"), least=_darkest(kinds, measure),
    )  # fmt: skip


def _darkest(kinds: Kinds, measure: Measure) -> float:
    """The largest barrier of all kinds; at least four standard errors, or a tenth of the loss at the ends."""
    rows = [row for each in kinds.values() for row in each]
    largest = [value for row in rows if (value := number(row[f"{measure.name}_barrier"])) == value]
    if f"{measure.name}_path" not in rows[0]:
        return max([0.01, *largest])
    ends = finite_mean_std(row[f"{measure.name}_path"][i] for row in rows for i in (0, -1)).mean
    error = chance(rows, measure)
    return max([1e-6, 4 * error if error else 0.1 * abs(ends) if ends == ends else 0.01, *largest])


def _with_repair(kind: str) -> str:
    return ", with REPAIR" if REPAIRED in kind else ""


def _colors(kinds: Kinds) -> dict[str, str]:
    return {kind: "c6" if REPAIRED in kind else "c1" for kind in kinds}


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
    if merges.get("weights") is not None:
        lines.append(f"weights of the models: {', '.join(f'{weight:g}' for weight in merges['weights'])}")
    if merges["base"] is not None:
        lines.append(f"base of task vectors: {merges['base']}")
    equal = {merge["shared_entries"] for merge in merges["methods"]}
    counts = " or ".join(f"{count:,}" for count in sorted(equal))
    return [
        *lines,
        f"anchors: {counts} entries are equal in all models, and bit for bit in every merge{' before REPAIR' * result['options']['repair']}",
    ]


def _ends(result: dict[str, Any]) -> list[str]:
    again = "running statistics of the models themselves were estimated again, as of those between them"
    return [again] if result["options"].get("reset_ends") else []


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

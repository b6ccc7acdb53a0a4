"""What `tna fuse` shows: every fusion on both splits, and the paths and barriers between all pairs."""

from collections.abc import Sequence
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.fuse import report_figures, report_merges
from tna_jax.programs.fuse.report_figures import MEMBERS, Fusions, mean_and_spread, with_repair
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.divergence import is_finite
from tna_jax.programs.reports.figures import Figure
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.paths import by_kind, kind_paths, kind_table
from tna_jax.programs.reports.statistics import (
    format_mean_std,
    format_number,
    format_spread,
    number,
)

SPLITS = ("test", "train")


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the fusions; both splits are in the table, the one asked for first."""
    fusions: Fusions = {}
    for row in result["rows"]:
        fusions.setdefault(row["fusion"], {})[row["split"]] = row
    measured = measures.of_result(result)
    first, kinds = measured[0], pairs_by_kind(result, split)
    cells = {name: format_mean_std(mean_and_spread(both[split], first.name)) for name, both in fusions.items()}
    numbers = [Number(f"{first.label}, {name}", text, minor=name in (MEMBERS, "logit ensemble")) for name, text in cells.items()]  # fmt: skip
    barrier, remarks = first.label_of(" barrier"), []
    for kind, rows in kinds.items():
        values = [number(row[f"{first.name}_barrier"]) for row in rows]
        repaired = with_repair(kind)
        pairs, spread = plural(len(values), "pair"), format_spread(values)
        numbers.append(Number(f"{barrier}, models to fuse{repaired}", spread, pairs, True))
        largest = format_number(max(values, default=float("nan")))
        remarks.append(f"{split} {barrier}{repaired}, {pairs}: {spread}, largest {largest}")
    tables = [_fusions_table(fusions, result, measured, split)]
    tables += [report_merges.table(result, first, fusions[MEMBERS], split)] if result.get("merges") else []
    figures: list[Figure] = [report_figures.dots(fusions, measure, split) for measure in measured]
    figures += report_figures.averages(result, first, split)
    if "alphas" in result:
        caption = f"paths between pairs, {split} set, mean ± standard deviation over pairs"
        tables.append(kind_table(caption, result["alphas"], kinds, measured))
        figures += [
            kind_paths(result["alphas"], kinds, report_figures.colors(kinds), measure, split, compared=False)
            for measure in measured
        ]
    figures += [
        report_figures.matrix(rows, measure, kinds, result, split, with_repair(kind))
        for kind, rows in kinds.items()
        for measure in measured
        if f"{measure.name}_barrier" in rows[0]
    ]
    remarks += [*_matching(result), *report_merges.remarks(result), *_ends(result)]
    bad = [name for name, both in fusions.items() if not is_finite(both[split])]
    notes = [f"Without a number, as the loss is not finite: {', '.join(bad)}."] if bad else []
    return Description("Fusions", checkpoint_status.title(result), _lead(result), numbers, [*tables, *figures],
                       remarks=remarks, notes=notes)  # fmt: skip


def pairs_by_kind(result: dict[str, Any], split: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the rows of the pairs by kind of path: as they are, and after REPAIR; files of before kinds were kept have one."""
    return by_kind([{"kind": "", **row} for row in result["pairs"]], split)


def _fusions_table(fusions: Fusions, result: dict[str, Any], measured: Sequence[Measure], split: str) -> Table:
    """All fusions by all measures, on both splits."""
    order, names = sorted(SPLITS, key=lambda name: name != split), [measure.name for measure in measured]
    rows = [
        [name, str(len(both[split].get("models", result["models"]))),
         *(format_mean_std(mean_and_spread(both[of], measure)) for of in order for measure in names)]
        for name, both in fusions.items()
    ]  # fmt: skip
    heads = ["fusion", "models", *(f"{of} {measure.label}" for of in order for measure in measured)]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names).replace("_", " ")
    return Table(f"{listed} of each fusion", heads, rows)


def _ends(result: dict[str, Any]) -> list[str]:
    again = "running statistics of the models themselves were estimated again, as of those between them"
    return [again] if result["options"].get("reset_ends") else []


def _lead(result: dict[str, Any]) -> str:
    options = result["options"]
    after = [f"{options['matching']} matching"] if options["matching"] != "none" else []
    after += ["REPAIR"] if options["repair"] else []
    return (
        f"{len(result['models'])} models made one{' after ' + ' and '.join(after) if after else ''}. The best single model and "
        f"the greedy soup were chosen on {report_merges.held_out(result)}."
    )


def _matching(result: dict[str, Any]) -> list[str]:
    if result.get("matched") is None:
        return []
    total = {
        key: sum(model[key] for model in result["matched"]["models"]) for key in ("assignments", "moving", "moved")
    }
    return [f"matching: {total['assignments']} linear assignments, of which {total['moving']} moved a unit; {total['moved']} "
            "units moved in all"]  # fmt: skip

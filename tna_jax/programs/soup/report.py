"""What `tna soup` shows: means over seeds of every fusion by mask ratio, and soups against the best single model."""

import textwrap
from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.by_count import by_count
from tna_jax.programs.reports.divergence import DIVERGED, is_finite
from tna_jax.programs.reports.figures import Curve, Curves, Dot, Dots, Figure
from tna_jax.programs.reports.measures import ACCURACY
from tna_jax.programs.reports.statistics import format_mean_std, format_number, mean_std, number
from tna_jax.programs.reports.wording import RATIO, dataset_name, frozen_text, memory_use, ratio_name, ratio_text

FUSIONS = ("best single", "mean of members", "uniform soup", "greedy soup", "logit ensemble")
COLORS = dict(zip(FUSIONS, ("c7", "muted", "c1", "c3", "c5"), strict=True))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Computes for each ratio, fusion and split: seeds, accuracy and loss as [mean, sample standard deviation] over seeds."""
    lines = []
    for ratio in dict.fromkeys(row["ratio"] for row in rows):
        for fusion in FUSIONS:
            for split in dict.fromkeys(row["split"] for row in rows):
                chosen = [row for row in rows if (row["ratio"], row["fusion"], row["split"]) == (ratio, fusion, split)]
                values = {key: list(mean_std(row[key] for row in chosen)) for key in ("accuracy", "loss")}
                lines.append({"ratio": ratio, "fusion": fusion, "split": split, "n": len(chosen), **values})
    return lines


def finite_summary(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the summary of a results file, its means over the seeds whose loss is finite; `diverged` counts the others."""
    lines = []
    for line in result["summary"]:
        rows = [row for row in result["rows"] if all(row[key] == line[key] for key in ("ratio", "fusion", "split"))]
        finite = [row for row in rows if is_finite(row)]
        means = (
            {key: list(mean_std(row[key] for row in finite)) for key in ("accuracy", "loss")}
            if len(finite) < len(rows)
            else {}
        )
        lines.append({**line, **means, "diverged": len(rows) - len(finite)})
    return lines


def accuracy_text(line: dict[str, Any]) -> str:
    """Writes the accuracy of a line of `finite_summary`."""
    return DIVERGED if line["diverged"] == line["n"] else format_mean_std(line["accuracy"])


def difference(rows: list[dict[str, Any]], split: str, first: tuple[Any, str], second: tuple[Any, str]) -> list[float]:
    """Computes accuracy of one (ratio, fusion) less another's, seed by seed, where both are finite."""
    values = [
        {row["seed"]: number(row["accuracy"]) for row in rows
         if (row["ratio"], row["fusion"], row["split"]) == (*which, split) and is_finite(row)}
        for which in (first, second)
    ]  # fmt: skip
    return [values[0][seed] - values[1][seed] for seed in values[0] if seed in values[1]]


def headline(result: dict[str, Any]) -> str:
    """Returns the uniform soup's test accuracy by ratio, in words."""
    lines = [line for line in finite_summary(result) if line["fusion"] == "uniform soup" and line["split"] == "test"]
    return "uniform soup, test accuracy " + ", ".join(
        (DIVERGED if line["diverged"] == line["n"] else f"{line['accuracy'][0]:.4f}")
        + ("" if line["ratio"] is None else f" at ratio {line['ratio']:g}")
        for line in lines
    )


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes all fusions on the test set and on the shifted ones."""
    lines: dict[tuple[Any, str], dict[str, dict[str, Any]]] = {}
    result = {**result, "summary": finite_summary(result)}
    for line in result["summary"]:
        lines.setdefault((line["ratio"], line["fusion"]), {})[line["split"]] = line
    splits = list(dict.fromkeys(line["split"] for line in result["summary"]))
    rows = [[ratio_text(ratio), fusion, *(accuracy_text(by_split[name]) for name in splits)]
            for (ratio, fusion), by_split in lines.items()]  # fmt: skip
    seeds = plural(max(line["n"] for line in result["summary"]), "seed")
    numbers = [Number(f"test accuracy, {fusion}, {ratio_name(ratio)}", accuracy_text(by_split["test"]),
                      f"n = {by_split['test']['n'] - by_split['test']['diverged']}", fusion not in ("best single", "uniform soup", "greedy soup"))
               for (ratio, fusion), by_split in lines.items() if "test" in by_split]  # fmt: skip
    start = textwrap.shorten(result["stands_on"]["in_words"], 150)
    return Description(
        "Soups", f"{result['what']}; {result['parameters']:,} parameters, on {start}", numbers=numbers,
        blocks=[Table(f"accuracy, mean ± standard deviation over {seeds}", ["ratio", "fusion", *splits], rows, keys=2),
                *(_figure(result, name) for name in splits if name in ("test", "shifted")), *_by_count(result)],
        remarks=[*frozen_text(result.get("frozen")), *gains(result), *memory_use(result.get("provenance", {}))],
        notes=_left_out(lines),
    )  # fmt: skip


def _left_out(lines: dict[tuple[Any, str], dict[str, dict[str, Any]]]) -> list[str]:
    """Returns which fusions are not finite, by mask ratio, of how many seeds."""
    fusions: dict[Any, list[str]] = {}
    for (ratio, fusion), by_split in lines.items():
        diverged = max(line["diverged"] for line in by_split.values())
        if diverged:
            fusions.setdefault(ratio, []).append(
                f"{fusion} ({diverged} of {plural(next(iter(by_split.values()))['n'], 'seed')})"
            )
    return [
        f"Left out of the means, {ratio_name(ratio)}, as models diverged: {', '.join(parts)}."
        for ratio, parts in fusions.items()
    ]


def _figure(result: dict[str, Any], split: str) -> Figure:
    """Accuracy by mask ratio; of one ratio a dot for each fusion."""
    chosen = {fusion: [line for line in result["summary"] if (line["fusion"], line["split"]) == (fusion, split)]
              for fusion in FUSIONS}  # fmt: skip
    chosen = {fusion: lines for fusion, lines in chosen.items() if lines}
    title = (
        f"test set: {dataset_name(result['config'])}" if split == "test" else f"mean of {', '.join(result['shifted'])}"
    )
    if len(next(iter(chosen.values()))) == 1:
        dots = [Dot(fusion, number(lines[0]["accuracy"][0]), lines[0]["accuracy"][1], color=COLORS[fusion])
                for fusion, lines in chosen.items()]  # fmt: skip
        return Dots(
            title=f"Accuracy, {title}",
            alt=f"Dot chart of the accuracy of {', '.join(chosen)}.",
            dots=dots,
            what="accuracy",
        )
    curves = [
        Curve.of(fusion, [line["ratio"] for line in lines], [line["accuracy"] for line in lines],
              color=COLORS[fusion], dash="dash" if fusion in FUSIONS[:2] else "solid")
        for fusion, lines in chosen.items()
    ]  # fmt: skip
    alt = f"Line chart of the accuracy of {', '.join(chosen)} on the {split} set against the mask ratio."
    return Curves(
        title=f"Accuracy by mask ratio, {title}", alt=alt, curves=curves, xaxis=RATIO, yaxis="accuracy", spread="bars"
    )


def _by_count(result: dict[str, Any]) -> list[Figure]:
    """Accuracy against the number of models averaged, a curve for each ratio; files of before have none."""
    rows = [row for row in result.get("by_count", []) if row["split"] == "test"]
    if not rows:
        return []
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(ratio_name(row["ratio"]), []).append(row)
    colors = {ratio_name(0.0): "muted"}
    return [by_count(groups, ACCURACY, "test", colors)]


def gains(result: dict[str, Any]) -> list[str]:
    """Returns in words: anchored soups less the plain one, and soups less the best single model."""
    rows, sentences = result["rows"], []
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    for fusion in ("uniform soup", "greedy soup"):
        for split in ("test", *(["shifted"] if result["shifted"] else [])):
            parts = []
            for ratio in ratios:
                single = mean_std(difference(rows, split, (ratio, fusion), (ratio, "best single"))).mean
                name = "" if ratio is None else f"ratio {ratio:g}: "
                text = f"{name}{format_number(single, sign=True)} over the best single"
                if ratio and 0.0 in ratios:
                    plain = mean_std(difference(rows, split, (ratio, fusion), (0.0, fusion))).mean
                    text += f", {format_number(plain, sign=True)} over the plain soup"
                parts.append(text)
            sentences.append(f"{fusion}, {split}: {'; '.join(parts)}")
    return sentences

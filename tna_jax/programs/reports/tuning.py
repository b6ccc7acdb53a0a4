"""A report's parts on fine-tuned models: `soup.json`, averages of them by mask ratio, and `cold.json`, iterations of ColD Fusion.

Both hold a `summary` of lines whose `accuracy` is [mean, standard deviation over seeds, or null].
"""

from typing import Any

from tna_jax.programs.reports.blocks import Figure, Number, Overlay, Part, Table, format_text, number
from tna_jax.programs.reports.charts import Curve, curves
from tna_jax.programs.reports.lmc import RATIO

Line = dict[str, Any]


def soup(result: dict[str, Any], split: str) -> Part:
    """What `tna soup` found, on its test set and under each shift of it."""
    summary = result["summary"]
    splits = list(dict.fromkeys(line["split"] for line in summary))
    lines: dict[tuple[Any, str], dict[str, Line]] = {}
    for line in summary:
        lines.setdefault((line["ratio"], line["fusion"]), {})[line["split"]] = line
    rows = [
        [fusion, _ratio(ratio), *(_words(by_split[name]["accuracy"]) if name in by_split else "–" for name in splits)]
        for (ratio, fusion), by_split in lines.items()
    ]
    blocks: list[Table | Figure] = [
        Table("accuracy, mean ± standard deviation over seeds", ["fusion", "ratio", *splits], rows)
    ]
    if len({ratio for ratio, _ in lines}) > 1:
        for name in [name for name in splits if name in ("test", "shifted")]:
            found = {fusion: [line for line in summary if (line["fusion"], line["split"]) == (fusion, name)]
                     for fusion in dict.fromkeys(fusion for _, fusion in lines)}  # fmt: skip
            drawn = [_curve(fusion, chosen, "ratio") for fusion, chosen in found.items()]
            blocks.append(curves(f"Accuracy by mask ratio, {name} set", f"Line chart of the accuracy of {', '.join(found)} on the "
                                 f"{name} set against the mask ratio.", drawn, RATIO, "accuracy"))  # fmt: skip
    numbers = [
        Number(f"test accuracy, {fusion}, {_named(ratio)}", _words(by_split["test"]["accuracy"]),
               f"n = {by_split['test']['n']}", fusion not in ("best single", "uniform soup", "greedy soup"))
        for (ratio, fusion), by_split in lines.items()
        if "test" in by_split
    ]  # fmt: skip
    return Part("Soups", f"{result['what']}; {result['parameters']:,} parameters.", numbers, blocks)


def cold(result: dict[str, Any], split: str) -> Part:
    """What `tna cold` found: accuracy by iteration, fine-tuned and by a linear probe, on seen and unseen tasks."""
    groups: dict[tuple[str, bool], dict[float, list[Line]]] = {}
    for line in result["summary"]:
        groups.setdefault((line["kind"], line["seen"]), {}).setdefault(line["ratio"], []).append(line)
    blocks: list[Table | Figure] = []
    numbers, rows, overlays = [], [], []
    for (kind, seen), by_ratio in groups.items():
        where = f"{kind}, {'seen' if seen else 'unseen'} tasks"
        drawn = [_curve(_named(ratio), lines, "iteration") for ratio, lines in by_ratio.items()]
        blocks.append(curves(f"Accuracy by iteration, {where}", f"Line chart of the mean accuracy over tasks by iteration of ColD "
                             f"Fusion, {where}, a line for each mask ratio.", drawn, "iteration", "accuracy"))  # fmt: skip
        for ratio, lines in by_ratio.items():
            last = max(lines, key=lambda line: line["iteration"])
            rows.append(
                [where, _ratio(ratio), str(last["iteration"]), _words(last["accuracy"]), _words(last["gain"], "+")]
            )
            numbers.append(Number(f"gain, {where}, {_named(ratio)}", _words(last["gain"], "+"),
                                  f"after iteration {last['iteration']}, n = {last['n']}", kind != "fine-tuning"))  # fmt: skip
        for curve in drawn:
            overlays.append(Overlay(f"accuracy by iteration, {where}, {curve.name}", "iteration", "accuracy", curve.x, curve.y,
                                    curve.spread))  # fmt: skip
    heads = ["score", "ratio", "iterations", "accuracy", "gain over the start"]
    table = Table("last iteration, mean over tasks ± standard deviation over seeds", heads, rows)
    tasks = ", ".join(f"{task['title']}{'' if task['seen'] else ' (unseen)'}" for task in result["tasks"])
    lead = (
        f"Bodies fine-tuned apart and averaged, again and again; {result['parameters']:,} parameters. Tasks: {tasks}."
    )
    return Part("ColD Fusion", lead, numbers, [table, *blocks], overlays)


def _curve(name: str, lines: list[Line], at: str) -> Curve:
    known = sorted((line for line in lines if line[at] is not None), key=lambda line: line[at])
    means, spreads = ([line["accuracy"][i] for line in known] for i in (0, 1))
    return Curve(name, [line[at] for line in known], means, spreads if any(s is not None for s in spreads) else None)


def _words(value: list[float | None], sign: str = "") -> str:
    mean, std = number(value[0]), value[1]
    shown = f"+{format_text(mean)}" if sign and mean >= 0 else format_text(mean)
    return shown if std is None else f"{shown} ± {format_text(std)}"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:g}"


def _named(ratio: float | None) -> str:
    return "models as given" if ratio is None else f"ratio {ratio:g}" if ratio else "no anchors"

"""What `tna cold` shows: accuracy by iteration, of fine-tuning and of the linear probe, on seen and on unseen tasks."""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.wording import frozen_text, ratio_name, ratio_text, seen_text

KINDS = ("fine-tuning", "probe")
Line = dict[str, Any]


def summary(rows: list[dict[str, Any]]) -> list[Line]:
    """Computes for each ratio, iteration, kind and group of tasks the mean over its tasks, as [mean, standard deviation] over seeds.

    `gain` is the same of the difference to the starting body, seed by seed.
    """
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("seed", "ratio", "iteration", "kind", "seen"))
        groups.setdefault(key, []).append(row["accuracy"])
    means = {key: float(np.mean(values)) for key, values in groups.items()}
    lines = []
    for ratio, iteration, kind, seen in dict.fromkeys(key[1:] for key in means):
        values = {key[0]: value for key, value in means.items() if key[1:] == (ratio, iteration, kind, seen)}
        gains = [value - means[seed, ratio, 0, kind, seen] for seed, value in values.items()]
        lines.append({"ratio": ratio, "iteration": iteration, "kind": kind, "seen": seen, "n": len(values),
                      "accuracy": list(mean_std(values.values())), "gain": list(mean_std(gains))})  # fmt: skip
    return lines


def find(result: dict[str, Any], **wanted: Any) -> Line | None:
    """Returns the line of the summary with the values of `wanted`; None where that was not scored."""
    return next((line for line in result["summary"] if all(line[key] == value for key, value in wanted.items())), None)


def cell(line: Line | None, key: str = "accuracy") -> str:
    """Returns a mean and its spread, or a dash."""
    return "-" if line is None else format_mean_std(line[key])


def progress_line(rows: list[dict[str, Any]], iteration: int) -> str:
    """Returns an iteration in a line."""
    parts = []
    for kind in KINDS:
        for seen in (True, False):
            values = [row["accuracy"] for row in rows if row["kind"] == kind and row["seen"] == seen]
            parts += [f"{kind} {seen_text(seen)} {np.mean(values):.3f}"] if values else []
    return f"iteration {iteration}: mean accuracy {', '.join(parts)}"


def headline(result: dict[str, Any]) -> str:
    """Returns the gains on unseen (else seen) tasks by fine-tuning after the last iteration, in words."""
    last = result["config"]["iterations"]
    seen = all(line["seen"] for line in result["summary"])
    parts = [f"{round(line['gain'][0], 4) + 0.0:+.4f} at ratio {line['ratio']:g}" for line in result["summary"]
             if (line["iteration"], line["kind"], line["seen"]) == (last, KINDS[0], seen)]  # fmt: skip
    return f"{seen_text(seen)} tasks, fine-tuning, iteration {last} less 0: {', '.join(parts)}"


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes every iteration: means over tasks with their standard deviation over seeds, and gains over the start."""
    groups: dict[tuple[str, bool], dict[float, list[Line]]] = {}
    for line in sorted(result["summary"], key=lambda line: (KINDS.index(line["kind"]), not line["seen"])):
        groups.setdefault((line["kind"], line["seen"]), {}).setdefault(line["ratio"], []).append(line)
    names = {(kind, seen): f"{kind}, {seen_text(seen)} tasks" for kind, seen in groups}
    every = [
        [ratio_text(ratio), str(iteration),
         *(cell(find(result, ratio=ratio, iteration=iteration, kind=kind, seen=seen)) for kind, seen in groups)]
        for ratio, iteration in sorted(dict.fromkeys((line["ratio"], line["iteration"]) for line in result["summary"]))
    ]  # fmt: skip
    numbers: list[Number] = []
    last: list[list[str]] = []
    figures: list[Curves] = []
    for (kind, seen), by_ratio in groups.items():
        name = names[kind, seen]
        figures.append(_figure(result, name, seen, by_ratio))
        for ratio, lines in by_ratio.items():
            end = max(lines, key=lambda line: line["iteration"])
            gain = format_mean_std(end["gain"], sign=True)
            last.append([name, ratio_text(ratio), str(end["iteration"]), cell(end), gain])
            numbers.append(Number(f"gain, {name}, {ratio_name(ratio)}", gain, f"after iteration {end['iteration']}, n = {end['n']}",
                                  kind != "fine-tuning"))  # fmt: skip
    over = f"mean over tasks ± standard deviation over {plural(max(line['n'] for line in result['summary']), 'seed')}"
    tables = [Table(f"accuracy, {over}", ["ratio", "iteration", *names.values()], every, keys=2),
              Table(f"last iteration, {over}", ["score", "ratio", "iterations", "accuracy", "gain over the start"], last, keys=2)]  # fmt: skip
    tasks = ", ".join(f"{task['title']}{'' if task['seen'] else ' (unseen)'}" for task in result["tasks"])
    return Description(
        "ColD Fusion", f"{result['parameters']:,} parameters, on {result['stands_on']['in_words']}",
        f"Bodies fine-tuned apart and averaged, again and again. Tasks: {tasks}.", numbers, [*tables, *figures],
        [result["headline"], *frozen_text(result.get("frozen")), f"anchored entries that moved: {result['anchors_moved']}"],
    )  # fmt: skip


def _figure(result: dict[str, Any], name: str, seen: bool, by_ratio: dict[float, list[Line]]) -> Curves:
    curves = []
    for ratio, lines in by_ratio.items():
        lines = sorted(lines, key=lambda line: line["iteration"])
        curves.append(Curve.of(ratio_name(ratio), [line["iteration"] for line in lines], [line["accuracy"] for line in lines], color="" if ratio else "muted",
                            dash="solid" if ratio else "dash"))  # fmt: skip
    tasks = ", ".join(task["title"] for task in result["tasks"] if task["seen"] == seen)
    alt = (
        f"Line chart of the mean accuracy over {tasks} by iteration of ColD Fusion, {name}, a line for each mask ratio."
    )
    return Curves(title=f"Accuracy by iteration, {name}", alt=alt, curves=curves, xaxis="iteration", yaxis="accuracy", compared=True,
                  spread="bars")  # fmt: skip

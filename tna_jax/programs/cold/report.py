"""What `tna cold` shows: accuracy by iteration, of fine-tuning and of the linear probe, on seen and on unseen tasks.

Bodies whose loss is not finite on a task of a group stand in no mean of it: their accuracy of 0, or of chance, says nothing.
"""

from typing import Any

import numpy as np

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.cold.report_divergence import contributors_table, left_out
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.divergence import DIVERGED, is_finite
from tna_jax.programs.reports.figures import Curve, Curves
from tna_jax.programs.reports.statistics import format_mean_std, mean_std, number
from tna_jax.programs.reports.wording import frozen_text, ratio_name, ratio_text, seen_text

KINDS = ("fine-tuning", "probe")
Line = dict[str, Any]


def summary(rows: list[dict[str, Any]]) -> list[Line]:
    """Computes for each ratio, iteration, kind and group of tasks the mean over its tasks, as [mean, standard deviation] over seeds.

    `gain` is the same of the difference to the starting body, seed by seed. Of `n` seeds those in which a body diverged are left out;
    `diverged` counts them.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ("seed", "ratio", "iteration", "kind", "seen")), []).append(row)
    finite = {key: rows for key, rows in groups.items() if all(map(is_finite, rows))}
    means = {key: float(np.mean([row["accuracy"] for row in rows])) for key, rows in finite.items()}
    losses = {key: float(np.mean([row.get("loss", np.nan) for row in rows])) for key, rows in finite.items()}
    lines = []
    for line in dict.fromkeys(key[1:] for key in groups):
        ratio, iteration, kind, seen = line
        values = {key[0]: value for key, value in means.items() if key[1:] == line}
        starts = {seed: means.get((seed, ratio, 0, kind, seen)) for seed in values}
        gains = [value - start for seed, value in values.items() if (start := starts[seed]) is not None]
        count = sum(key[1:] == line for key in groups)
        lines.append({"ratio": ratio, "iteration": iteration, "kind": kind, "seen": seen, "n": count,
                      "accuracy": list(mean_std(values.values())), "gain": list(mean_std(gains)),
                      "loss": list(mean_std(losses[seed, *line] for seed in values)), "diverged": count - len(values)})  # fmt: skip
    return lines


def find(result: dict[str, Any], **wanted: Any) -> Line | None:
    """Returns the line of the summary with the values of `wanted`; None where that was not scored."""
    return next((line for line in result["summary"] if all(line[key] == value for key, value in wanted.items())), None)


def cell(line: Line | None, key: str = "accuracy", sign: bool = False) -> str:
    """Returns a mean and its spread, a dash, or that all diverged; files of before have no losses."""
    if line is None or key not in line:
        return "-"
    return DIVERGED if line.get("diverged") == line["n"] else format_mean_std(line[key], sign=key == "gain" and sign)


def progress_line(rows: list[dict[str, Any]], iteration: int) -> str:
    """Returns an iteration in a line."""
    parts = []
    for kind in KINDS:
        for seen in (True, False):
            chosen = [row for row in rows if row["kind"] == kind and row["seen"] == seen]
            values = [row["accuracy"] for row in chosen if is_finite(row)]
            lost = (
                f" ({len(chosen) - len(values)} of {len(chosen)} {DIVERGED})" if 0 < len(values) < len(chosen) else ""
            )
            mean = f"{np.mean(values):.3f}{lost}" if values else DIVERGED
            parts += [f"{kind} {seen_text(seen)} {mean}"] if chosen else []
    return f"iteration {iteration}: mean accuracy {', '.join(parts)}"


def headline(result: dict[str, Any]) -> str:
    """Returns the gains on unseen (else seen) tasks by fine-tuning after the last iteration, in words."""
    last = result["config"]["iterations"]
    seen = all(line["seen"] for line in result["summary"])
    parts = [f"{_gain(line)} at ratio {line['ratio']:g}" for line in result["summary"]
             if (line["iteration"], line["kind"], line["seen"]) == (last, KINDS[0], seen)]  # fmt: skip
    return f"{seen_text(seen)} tasks, fine-tuning, iteration {last} less 0: {', '.join(parts)}"


def _gain(line: Line) -> str:
    gain = number(line["gain"][0])
    return f"{round(gain, 4) + 0.0:+.4f}" if np.isfinite(gain) else DIVERGED


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
    tuned = [line for line in result["summary"] if line["kind"] == KINDS[0]]
    with_losses = any(np.isfinite(number(line.get("loss", [None])[0])) for line in tuned)
    numbers: list[Number] = []
    last: list[list[str]] = []
    figures: list[Curves] = []
    for (kind, seen), by_ratio in groups.items():
        name = names[kind, seen]
        figures.append(_figure(result, name, seen, by_ratio))
        for ratio, lines in by_ratio.items():
            end = max(lines, key=lambda line: line["iteration"])
            gain = cell(end, "gain", sign=True)
            loss = [cell(end if kind == KINDS[0] else None, "loss")] if with_losses else []
            last.append([name, ratio_text(ratio), str(end["iteration"]), cell(end), gain, *loss])
            n = end["n"] - end.get("diverged", 0)
            numbers.append(Number(f"gain, {name}, {ratio_name(ratio)}", gain, f"after iteration {end['iteration']}, n = {n}",
                                  kind != "fine-tuning"))  # fmt: skip
    over = f"mean over tasks ± standard deviation over {plural(max(line['n'] for line in result['summary']), 'seed')}"
    tables = [Table(f"accuracy, {over}", ["ratio", "iteration", *names.values()], every, keys=2),
              Table(f"last iteration, {over}", ["score", "ratio", "iterations", "accuracy", "gain over the start",
                                                *(["test loss"] if with_losses else [])], last, keys=2),
              *contributors_table(result)]  # fmt: skip
    tasks = ", ".join(f"{task['title']}{'' if task['seen'] else ' (unseen)'}" for task in result["tasks"])
    return Description(
        "ColD Fusion", f"{result['parameters']:,} parameters, on {result['stands_on']['in_words']}",
        f"Bodies fine-tuned apart and averaged, again and again. Tasks: {tasks}.", numbers, [*tables, *figures],
        [result["headline"], *frozen_text(result.get("frozen")), f"anchored entries that moved: {result['anchors_moved']}"],
        notes=left_out(result, names),
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

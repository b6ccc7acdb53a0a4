"""What `tna cold` shows: accuracy by iteration, of fine-tuning and of the linear probe, on seen and on unseen tasks."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.soup.report import format_mean_std, spread

KINDS = ("fine-tuning", "probe")
COLOURS = ("#444444", "#1b6ca8", "#3c8d53", "#c7522a", "#7a5195", "#8a6d1d")
MARKS = "osv^DP"


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each ratio, iteration, kind and group of tasks: the mean over its tasks, as [mean, standard deviation] over seeds.

    `gain` is the same of the difference to the starting body, seed by seed.
    """
    means = _means(rows)
    made = []
    for ratio, number, kind, seen in dict.fromkeys(key[1:] for key in means):
        seeds = [key[0] for key in means if key[1:] == (ratio, number, kind, seen)]
        values = [means[seed, ratio, number, kind, seen] for seed in seeds]
        gains = [value - means[seed, ratio, 0, kind, seen] for value, seed in zip(values, seeds, strict=True)]
        made.append({"ratio": ratio, "iteration": number, "kind": kind, "seen": seen, "n": len(seeds),
                     "accuracy": spread(values), "gain": spread(gains)})  # fmt: skip
    return made


def _means(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], float]:
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("seed", "ratio", "iteration", "kind", "seen"))
        groups.setdefault(key, []).append(row["accuracy"])
    return {key: float(np.mean(values)) for key, values in groups.items()}


def find(result: dict[str, Any], **wanted: Any) -> dict[str, Any] | None:
    """The line of the summary with the values of `wanted`; None where that was not scored."""
    lines = [one for one in result["summary"] if all(one[key] == value for key, value in wanted.items())]
    return lines[0] if lines else None


def cell(one: dict[str, Any] | None, key: str = "accuracy") -> str:
    """A mean and its spread, or a dash."""
    return "-" if one is None else format_mean_std(one[key])


def line(rows: list[dict[str, Any]], number: int) -> str:
    """An iteration in one line."""
    parts = []
    for kind in KINDS:
        for seen in (True, False):
            values = [row["accuracy"] for row in rows if row["kind"] == kind and row["seen"] == seen]
            parts += [f"{kind} {'seen' if seen else 'unseen'} {np.mean(values):.3f}"] if values else []
    return f"iteration {number}: mean accuracy {', '.join(parts)}"


def headline(result: dict[str, Any]) -> str:
    """Gains on unseen (else seen) tasks by fine-tuning after the last iteration."""
    last = result["config"]["iterations"]
    seen = not any(one["seen"] is False for one in result["summary"])
    parts = [f"{round(one['gain'][0], 4) + 0.0:+.4f} at ratio {one['ratio']:g}" for one in result["summary"]
             if (one["iteration"], one["kind"], one["seen"]) == (last, KINDS[0], seen)]  # fmt: skip
    return f"{'seen' if seen else 'unseen'} tasks, fine-tuning, iteration {last} less 0: {', '.join(parts)}"


def table(result: dict[str, Any]) -> None:
    """Prints every iteration: means over tasks, with their standard deviation over seeds, and gains over the start."""
    seeds = max(one["n"] for one in result["summary"])
    lines = Table(
        title=f"ColD Fusion, {result['parameters']:,} parameters, on {result['stands_on']['in_words']}; accuracy, mean over tasks ± std "
        f"over {seeds} seed{'s' if seeds > 1 else ''}",
        title_justify="left",
    )
    groups = [(kind, seen) for kind in KINDS for seen in (True, False)
              if any((one["kind"], one["seen"]) == (kind, seen) for one in result["summary"])]  # fmt: skip
    for head in ("ratio", "iteration", *(f"{kind}, {'seen' if seen else 'unseen'}" for kind, seen in groups)):
        lines.add_column(head, justify="right")
    for ratio in dict.fromkeys(one["ratio"] for one in result["summary"]):
        for number in range(result["config"]["iterations"] + 1):
            found = [find(result, ratio=ratio, iteration=number, kind=kind, seen=seen) for kind, seen in groups]
            lines.add_row(f"{ratio:g}", str(number), *(cell(one) for one in found))
        lines.add_section()
    wide_console().print(lines)
    print(result["headline"])
    print(f"anchored entries that moved: {result['anchors_moved']}")


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws accuracy against the iteration, a line for each mask ratio, a panel for each score and group of tasks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    ratios = list(dict.fromkeys(one["ratio"] for one in result["summary"]))
    seens = [seen for seen in (True, False) if any(one["seen"] == seen for one in result["summary"])]
    grid, axes = plt.subplots(
        len(KINDS), len(seens), figsize=(4.2 * len(seens), 6), squeeze=False, layout="constrained"
    )
    for row, kind in zip(axes, KINDS, strict=True):
        for axis, seen in zip(row, seens, strict=True):
            for i, ratio in enumerate(ratios):
                found = [
                    one for one in result["summary"] if (one["ratio"], one["kind"], one["seen"]) == (ratio, kind, seen)
                ]
                x = np.array([one["iteration"] for one in found]) + 0.04 * (i - (len(ratios) - 1) / 2)
                mean = [one["accuracy"][0] for one in found]
                std = [one["accuracy"][1] or 0.0 for one in found]
                label = f"ratio {ratio:g}" if ratio else "no anchors"
                axis.errorbar(x, mean, std, marker=MARKS[i % 6], markersize=4, capsize=2, color=COLOURS[i % 6],
                              linestyle="-" if ratio else "--", label=label)  # fmt: skip
            titles = [task["title"] for task in result["tasks"] if task["seen"] == seen]
            axis.set_title(f"{kind}, {'seen' if seen else 'unseen'}: {', '.join(titles)}", loc="left", fontsize=8)
            axis.set_xticks(range(result["config"]["iterations"] + 1))
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("accuracy, mean over tasks")
    for axis in axes[-1]:
        axis.set_xlabel("iteration (0: the checkpoint)")
    axes[0, 0].legend(fontsize=8, frameon=False)
    title = f"{result['parameters']:,} parameters, on {result['stands_on']['in_words']}"
    grid.suptitle(textwrap.fill(title, 130), fontsize=8)
    grid.savefig(file, dpi=130)
    plt.close(grid)

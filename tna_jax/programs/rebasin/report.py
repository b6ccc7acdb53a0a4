"""What `tna rebasin` shows: a table and a figure of paths and barriers before and after matching."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.programs.cli.progress import plural, wide_console
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports.pair_matrix import number

COLOURS = {"unmatched": "#8a8f98", "weight matching": "#1b6ca8", "weight matching + REPAIR": "#6fb1dd",
           "activation matching": "#c2571a", "activation matching + REPAIR": "#eda46f"}  # fmt: skip


def kinds(result: dict[str, Any], split: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a split by kind, in the order of the file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row["split"] == split:
            found.setdefault(row["kind"], []).append(row)
    return found


def table(result: dict[str, Any], split: str = "test") -> None:
    """Prints the means over the pairs, with their standard deviation: accuracies and barriers, and what the search took."""
    by_kind = kinds(result, split)
    title = f"{result['run']['dataset']}, {result['network']}, {split} set, mean of {plural(len(by_kind['unmatched']), 'pair')}"
    lines, search = Table(title=title, title_justify="left"), Table(title="the search", title_justify="left")
    columns = ("accuracy_ends", "accuracy_midpoint", "accuracy_barrier", "loss_barrier")
    counts = ("sweeps", "assignments", "moving", "moved", "seconds")
    titles = ("sweeps", "linear assignments", "of which moved a unit", "units moved", "seconds")
    for shown, heads in ((lines, [column.replace("_", " ") for column in columns]), (search, titles)):
        shown.add_column("")
        for head in heads:
            shown.add_column(head, justify="right")
    for kind, rows in by_kind.items():
        numbers = [[number(v) for v in np.ravel(row[column])] for column in columns for row in rows]
        means = [float(np.mean(values)) for values in numbers]
        lines.add_row(kind, *(spread(means[i * len(rows) : (i + 1) * len(rows)], 4) for i in range(len(columns))))
        if "sweeps" in rows[0] and "REPAIR" not in kind:
            search.add_row(kind, *(spread([row[c] for row in rows], 2 if c == "seconds" else 1) for c in counts))
    for shown in (lines, search):
        wide_console().print(shown)


def spread(values: list[float], digits: int) -> str:
    """Mean and, of several, standard deviation."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def figure(result: dict[str, Any], file: Path, split: str = "test") -> None:
    """Draws the mean accuracy along the paths, and the accuracy barrier of every pair, for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    by_kind = kinds(result, split)
    grid, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for i, (kind, rows) in enumerate(by_kind.items()):
        curve = np.mean([[number(v) for v in row["accuracy_path"]] for row in rows], axis=0)
        style = {"color": COLOURS[kind], "linestyle": "--" if "REPAIR" in kind else "-"}
        left.plot(result["alphas"], curve, label=kind, linewidth=1.8, **style)
        barriers = [number(row["accuracy_barrier"]) for row in rows]
        right.bar(i, np.mean(barriers), color=COLOURS[kind], width=0.65)
        right.plot(
            np.linspace(i - 0.2, i + 0.2, len(barriers)),
            barriers,
            "o",
            color="black",
            markersize=2.5,
            alpha=0.6,
            zorder=5,
        )
        right.annotate(f"{np.mean(barriers):.3f}", (i, np.mean(barriers)), (0, 3), textcoords="offset points", ha="center",
                       fontsize=8, bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.75})  # fmt: skip
    left.set(xlabel="α, from one model (0) to the other (1)", ylabel=f"{split} accuracy")
    left.set_title(f"along the paths, mean of {plural(len(by_kind['unmatched']), 'pair')}", loc="left", fontsize=10)
    left.grid(alpha=0.25, linewidth=0.6)
    left.legend(fontsize=8, frameon=False)
    right.set_xticks(range(len(by_kind)), [kind.replace(" matching", "\nmatching") for kind in by_kind], fontsize=7)
    right.set(ylabel=f"{split} accuracy barrier")
    right.set_title("barriers, each pair a dot", loc="left", fontsize=10)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    grid.suptitle(checkpoint_status.title(result), fontsize=11)
    grid.savefig(file, dpi=130)
    plt.close(grid)

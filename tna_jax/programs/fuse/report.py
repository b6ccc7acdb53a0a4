"""What `tna fuse` shows: a table of fusions, dots for their accuracy, and the matrix of barriers between all pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.programs.cli.progress import plural, wide_console
from tna_jax.programs.population import checkpoint_status
from tna_jax.programs.reports.pair_matrix import matrix, number


def table(result: dict[str, Any]) -> None:
    """Prints every fusion on both splits."""
    held = result["held_out"]
    seen = "not seen in training" if held["unseen_in_training"] else "seen in training"
    options = result["options"]
    after = ", ".join(
        [
            *([f"{options['matching']} matching"] if options["matching"] != "none" else []),
            *(["REPAIR"] if options["repair"] else []),
        ]
    )
    lines = Table(
        title=f"{result['run']['dataset']}, {result['network']}, {len(result['models'])} models{', ' + after if after else ''}; "
        f"chosen on {held['examples']} training examples {seen}",
        title_justify="left",
    )
    for head in ("fusion", "models", "test accuracy", "test loss", "train accuracy", "train loss"):
        lines.add_column(head, justify="left" if head == "fusion" else "right")
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        by_name.setdefault(row["fusion"], {})[row["split"]] = row
    for name, both in by_name.items():
        used = len(both["test"].get("models", result["models"]))
        cells = []
        for split in ("test", "train"):
            for key in ("accuracy", "loss"):
                spread = f" ± {number(both[split][f'{key}_std']):.4f}" if f"{key}_std" in both[split] else ""
                cells.append(f"{number(both[split][key]):.4f}{spread}")
        lines.add_row(name, str(used), *cells)
    wide_console().print(lines)
    barriers = [number(row["accuracy_barrier"]) for row in result["pairs"] if row["split"] == "test"]
    spread = f" ± {np.std(barriers, ddof=1):.4f}" if len(barriers) > 1 else ""
    print(
        f"test accuracy barrier, {plural(len(barriers), 'pair')}: {np.mean(barriers):.4f}{spread}, largest {np.max(barriers):.4f}"
    )
    if result["matched"] is not None:
        ones = result["matched"]["models"]
        print(
            f"matching: {sum(one['assignments'] for one in ones)} linear assignments, of which "
            f"{sum(one['moving'] for one in ones)} moved a unit; {sum(one['moved'] for one in ones)} units moved in all"
        )


def figure(result: dict[str, Any], file: Path, split: str = "test") -> None:
    """Draws the accuracy of every fusion as a dot, that of the members as rings, beside the matrix of barriers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if row["split"] == split]
    grid, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    _dots(left, rows)
    left.set(xlabel=f"{split} accuracy (rings: the models)")
    left.set_title(f"{len(result['models'])} models", loc="left", fontsize=10)
    left.spines[["top", "right"]].set_visible(False)
    matrix(
        right,
        grid,
        len(result["models"]),
        {tuple(row["pair"]): number(row["accuracy_barrier"]) for row in result["pairs"] if row["split"] == split},
    )
    right.set_title(f"{split} accuracy barrier", loc="left", fontsize=10)
    grid.suptitle(checkpoint_status.title(result), fontsize=11)
    grid.savefig(file, dpi=130)
    plt.close(grid)


COLOURS = ("#8a8f98", "#8a8f98", "#1b6ca8", "#1b6ca8", "#c98a1b")


def _dots(axis: Any, rows: list[dict[str, Any]]) -> None:
    """A line for each fusion with its accuracy in words, a dot at it; every member is a ring on the line of their mean."""
    values = [number(row["accuracy"]) for row in rows]
    for i, (row, value, colour) in enumerate(zip(rows, values, COLOURS, strict=True)):
        members = [number(member) for member in row.get("member_accuracy", ())]
        axis.plot(members, [i] * len(members), "o", color="black", markerfacecolor="none", markersize=6, alpha=0.7)
        axis.plot([value], [i], "D" if members else "o", color=colour, markersize=5 if members else 8, zorder=5)
    axis.set_yticks(
        range(len(rows)), [f"{row['fusion']}  {value:.4f}" for row, value in zip(rows, values, strict=True)], fontsize=8
    )
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.margins(x=0.08)
    axis.grid(axis="both", alpha=0.25, linewidth=0.6)

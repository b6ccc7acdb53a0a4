"""What `tna fuse` shows: a table of fusions, bars of their accuracy, and the matrix of barriers between all pairs."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from fusion import reached
from fusion.pair_matrix import matrix, number
from train.progress import plural, wide_console


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
    """Draws the accuracy of every fusion, the members as dots, beside the matrix of barriers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if row["split"] == split]
    grid, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    names = [row["fusion"] for row in rows]
    heights = [number(row["accuracy"]) for row in rows]
    left.bar(names, heights, color=["#8a8f98", "#8a8f98", "#1b6ca8", "#1b6ca8", "#c98a1b"], width=0.65)
    (mean,) = [row for row in rows if row["fusion"] == "mean of members"]
    at = names.index("mean of members")
    dots = [number(value) for value in mean["member_accuracy"]]
    left.plot(np.linspace(at - 0.25, at + 0.25, len(dots)), dots, "o", color="black", markersize=2.5, alpha=0.6)
    plain = {"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.75}
    for i, height in enumerate(heights):
        if np.isfinite(height):
            left.annotate(
                f"{height:.4f}", (i, height), (0, 3), textcoords="offset points", ha="center", fontsize=8, bbox=plain
            )
    finite = [value for value in (*heights, *dots) if np.isfinite(value)] or [0.0, 1.0]
    margin = 0.15 * max(max(finite) - min(finite), 0.02)
    left.set_ylim(max(0, min(finite) - margin), min(1 + margin / 3, max(finite) + margin))
    left.set(ylabel=f"{split} accuracy")
    left.tick_params(axis="x", labelrotation=20, labelsize=8)
    left.set_title(f"{len(result['models'])} models", loc="left", fontsize=10)
    left.spines[["top", "right"]].set_visible(False)
    matrix(
        right,
        grid,
        len(result["models"]),
        {tuple(row["pair"]): number(row["accuracy_barrier"]) for row in result["pairs"] if row["split"] == split},
    )
    right.set_title(f"{split} accuracy barrier", loc="left", fontsize=10)
    grid.suptitle(reached.title(result), fontsize=11)
    grid.savefig(file, dpi=130)
    plt.close(grid)

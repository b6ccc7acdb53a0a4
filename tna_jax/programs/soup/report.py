"""What `tna soup` shows: means over seeds of every fusion by mask ratio, and soups against the best single model."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from tna_jax.programs.cli.progress import wide_console
from tna_jax.programs.reports.pair_matrix import number

FUSIONS = ("best single", "mean of members", "uniform soup", "greedy soup", "logit ensemble")
COLOURS = {"best single": "#444444", "mean of members": "#9a9a9a", "uniform soup": "#1b6ca8", "greedy soup": "#3c8d53",
           "logit ensemble": "#c98a1b"}  # fmt: skip
MARKS = dict(zip(FUSIONS, "osv^D", strict=True))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each ratio, fusion and split: seeds, accuracy and loss as [mean, sample standard deviation] over seeds."""
    made = []
    for ratio in dict.fromkeys(row["ratio"] for row in rows):
        for fusion in FUSIONS:
            for split in dict.fromkeys(row["split"] for row in rows):
                found = [row for row in rows if (row["ratio"], row["fusion"], row["split"]) == (ratio, fusion, split)]
                values = {key: spread([number(row[key]) for row in found]) for key in ("accuracy", "loss")}
                made.append({"ratio": ratio, "fusion": fusion, "split": split, "n": len(found), **values})
    return made


def spread(values: list[float]) -> list[float | None]:
    """[mean, sample standard deviation]; None for the latter of one value."""
    return [float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None]


def difference(rows: list[dict[str, Any]], split: str, one: tuple[Any, str], other: tuple[Any, str]) -> list[float]:
    """Accuracy of one (ratio, fusion) less another's, seed by seed."""
    values = [
        {row["seed"]: number(row["accuracy"]) for row in rows if (row["ratio"], row["fusion"], row["split"]) == (*which, split)}
        for which in (one, other)
    ]  # fmt: skip
    return [values[0][seed] - values[1][seed] for seed in values[0] if seed in values[1]]


def headline(result: dict[str, Any]) -> str:
    """The uniform soup's test accuracy by ratio."""
    found = [line for line in result["summary"] if line["fusion"] == "uniform soup" and line["split"] == "test"]
    return "uniform soup, test accuracy " + ", ".join(
        f"{line['accuracy'][0]:.4f}" + ("" if line["ratio"] is None else f" at ratio {line['ratio']:g}")
        for line in found
    )


def format_mean_std(value: list[float | None], digits: int = 4) -> str:
    """`0.9500 ± 0.0020`."""
    mean, std = value
    rounded = round(number(mean), digits) + 0.0  # no negative zero
    return f"{rounded:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def table(result: dict[str, Any]) -> None:
    """Prints every fusion on the test set and on the shifted ones, and the soups' gains."""
    splits = list(dict.fromkeys(line["split"] for line in result["summary"]))
    seeds = max(line["n"] for line in result["summary"])
    lines = Table(
        title=f"{result['what']}; {result['parameters']:,} parameters, on {result['stands_on']['in_words']}; accuracy, "
        f"mean ± std over {seeds} seed{'s' if seeds > 1 else ''}",
        title_justify="left",
    )
    for head in ("ratio", "fusion", *splits):
        lines.add_column(head, justify="left" if head == "fusion" else "right")
    for ratio in dict.fromkeys(line["ratio"] for line in result["summary"]):
        for fusion in FUSIONS:
            found = {
                line["split"]: line for line in result["summary"] if (line["ratio"], line["fusion"]) == (ratio, fusion)
            }
            cells = [format_mean_std(found[split]["accuracy"], 3) for split in splits]
            lines.add_row("-" if ratio is None else f"{ratio:g}", fusion, *cells)
        lines.add_section()
    wide_console().print(lines)
    for gain in gains(result):
        print(gain)
    memory_line(result.get("provenance", {}))


def memory_line(facts: dict[str, Any]) -> None:
    """Prints what was predicted of the memory before the training, and what it came to."""
    if facts.get("resident_bytes_before"):
        before, predicted, peak = (
            facts[key] / 1e9 for key in ("resident_bytes_before", "predicted_bytes", "peak_bytes")
        )
        print(
            f"memory: {before:.2f} GB before the training, {before + predicted:.2f} GB predicted, {peak:.2f} GB at most in the whole program"
        )


def gains(result: dict[str, Any]) -> list[str]:
    """In words: anchored soups less the plain one, and soups less the best single model."""
    rows, made = result["rows"], []
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    splits = ["test", *(["shifted"] if result["shifted"] else [])]
    for fusion in ("uniform soup", "greedy soup"):
        for split in splits:
            parts = []
            for ratio in ratios:
                over = spread(difference(rows, split, (ratio, fusion), (ratio, "best single")))
                text = f"{'' if ratio is None else f'ratio {ratio:g}: '}{over[0]:+.4f} over the best single"
                if ratio and 0.0 in ratios:
                    text += (
                        f", {np.mean(difference(rows, split, (ratio, fusion), (0.0, fusion))):+.4f} over the plain soup"
                    )
                parts.append(text)
            made.append(f"{fusion}, {split}: {'; '.join(parts)}")
    return made


def figure(result: dict[str, Any], file: Path) -> None:
    """Draws accuracy of every fusion against the mask ratio, on the test set and on the mean of the shifted ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    splits = [split for split in ("test", "shifted") if any(line["split"] == split for line in result["summary"])]
    grid, axes = plt.subplots(1, len(splits), figsize=(4.6 * len(splits), 3.8), squeeze=False, layout="constrained")
    for axis, split in zip(axes[0], splits, strict=True):
        for i, fusion in enumerate(FUSIONS):
            found = [line for line in result["summary"] if (line["fusion"], line["split"]) == (fusion, split)]
            x = np.arange(len(found)) + 0.05 * (i - 2)
            mean = [number(line["accuracy"][0]) for line in found]
            std = [line["accuracy"][1] or 0.0 for line in found]
            axis.errorbar(x, mean, std, marker=MARKS[fusion], capsize=2, markersize=4, color=COLOURS[fusion],
                          linestyle="--" if fusion in FUSIONS[:2] else "-", label=fusion)  # fmt: skip
        labels = ["-" if line["ratio"] is None else f"{line['ratio']:g}" for line in found]
        axis.set_xticks(range(len(found)), labels)
        axis.set(xlabel="mask ratio (share of anchored weights of the body)")
        title = "test set" if split == "test" else f"shifted: mean of {', '.join(result['shifted'])}"
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy")
    axes[0, -1].legend(fontsize=7.5, frameon=False)
    title = f"{result['config']['dataset']}, {result['parameters']:,} parameters, {result['config']['recipes']} recipes"
    grid.suptitle(f"{title}\non {textwrap.shorten(result['stands_on']['in_words'], 150)}", fontsize=8)
    grid.savefig(file, dpi=130)
    plt.close(grid)

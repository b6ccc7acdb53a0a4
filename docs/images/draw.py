"""`python -m docs.images.draw`: draws the picture of the idea (idea.png) and the card that a shared link shows (card.png).

Left, a sketch: what averaging does to hidden units that are in different orders, and in one order. Right, measured: the accuracy along the line between two digit networks that
share nothing but, where it says so, their anchors, from train/results/digits_lmc.json.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
RESULT = FOLDER.parents[1] / "train" / "results" / "digits_lmc.json"
COLORS = ("#e8590c", "#1971c2", "#2f9e44", "#9c36b5")
"""One for each feature that a hidden unit may have learned."""
INK, ANCHOR, FAINT = "#343a40", "#212529", "#ced4da"
PLAIN, ANCHORED = "#868e96", "#e8590c"
RATIO = 0.8
INPUTS, OUTPUTS = (0.8, 2.2), (0.8, 2.2)
ANCHORED_EDGES = ((0, 1), (1, 0), (0, 3), (1, 2))
"""Input and hidden unit of the weights that are drawn as anchors."""


def network(axes: Axes, left: float, bottom: float, colors: list[Any], anchors: bool, title: str) -> None:
    """Draws a network with a hidden layer of four units in these colors."""
    hidden = [(left + 1, bottom + height) for height in (3, 2, 1, 0)]
    for i, height in enumerate(INPUTS):
        for j, unit in enumerate(hidden):
            fixed = anchors and (i, j) in ANCHORED_EDGES
            style = {"color": ANCHOR, "lw": 2.4} if fixed else {"color": FAINT, "lw": 0.9}
            axes.plot([left, unit[0]], [bottom + height, unit[1]], zorder=1 + fixed, **style)
    for height in OUTPUTS:
        for unit in hidden:
            axes.plot([unit[0], left + 2], [unit[1], bottom + height], color=FAINT, lw=0.9, zorder=1)
    for x, heights in ((left, INPUTS), (left + 2, OUTPUTS)):
        axes.scatter([x] * 2, [bottom + height for height in heights], s=50, color="white", edgecolor=INK, zorder=3)
    axes.scatter(*zip(*hidden, strict=True), s=210, c=colors, edgecolor=INK, linewidth=1, zorder=3)
    axes.text(left + 1, bottom + 3.65, title, ha="center", color=INK, fontsize=10)


def average(first: list[str], second: list[str]) -> list[tuple[float, ...]]:
    """Returns the mean of the colors, unit by unit."""
    return [tuple(np.mean([to_rgb(a), to_rgb(b)], axis=0)) for a, b in zip(first, second, strict=True)]


def row(axes: Axes, bottom: float, order: tuple[int, ...], anchors: bool, title: str, outcome: str) -> None:
    """Draws two networks and their average."""
    first, second = list(COLORS), [COLORS[i] for i in order]
    network(axes, 0, bottom, first, anchors, "network A")
    network(axes, 3.6, bottom, second, anchors, "network B")
    network(axes, 7.2, bottom, average(first, second), anchors, "their average")
    for x, sign in ((2.8, "+"), (6.4, "→")):
        axes.text(x, bottom + 1.5, sign, ha="center", va="center", fontsize=20, color=INK)
    axes.text(-0.1, bottom + 4.35, title, fontsize=11.5, fontweight="bold", color=INK)
    axes.text(9.3, bottom - 0.75, outcome, ha="right", fontsize=10, style="italic", color=INK)


def sketch(axes: Axes) -> None:
    """Draws both rows."""
    row(axes, 6.6, (2, 3, 1, 0), False, "Trained apart: the same features, in another order",
        "every unit is a mixture: the average has forgotten")  # fmt: skip
    row(axes, 0, (0, 1, 2, 3), True, "With shared anchors (bold: weights that never move)",
        "every unit meets its like: the average works")  # fmt: skip
    axes.set(xlim=(-0.4, 9.6), ylim=(-1.2, 11.5))
    axes.axis("off")


def measured(axes: Axes) -> None:
    """Draws the accuracy along the line, mean and standard deviation over pairs."""
    result = json.loads(RESULT.read_text())
    for ratio, color in ((0.0, PLAIN), (RATIO, ANCHORED)):
        paths = [100 * np.asarray(r["accuracy_path"]) for r in result["rows"]
                 if (r["method"], r["init"], r["split"], r["ratio"]) == ("tna", "different", "test", ratio)]  # fmt: skip
        mean, spread = np.mean(paths, axis=0), np.std(paths, axis=0, ddof=1)
        axes.fill_between(result["alphas"], mean - spread, np.minimum(mean + spread, 100), color=color, alpha=0.2, lw=0)
        axes.plot(result["alphas"], mean, color=color, lw=2.4)
    axes.set(xlim=(0, 1), ylim=(0, 100), xticks=[0, 0.5, 1], xticklabels=["network A", "average", "network B"],
             ylabel="test accuracy, %")  # fmt: skip
    axes.set_title(
        f"Measured: digits, {len(paths)} pairs, different initializations", fontsize=11, color=INK, loc="left"
    )
    axes.text(0.5, 74, f"{RATIO:.0%} of the\nweights anchored", ha="center", va="top", color=ANCHORED, fontsize=10)
    axes.text(0.04, 50, "no anchors", color=PLAIN, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def idea() -> Figure:
    """Returns the picture of the idea."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(1.45, 1), layout="constrained")
    sketch(left)
    measured(right)
    return figure


def card() -> Figure:
    """Returns the card, 1280 by 640 pixels."""
    figure = plt.figure(figsize=(12.8, 6.4))
    figure.text(0.05, 0.83, "tna_jax", fontsize=54, fontweight="bold", color=INK)
    figure.text(0.05, 0.73, "Networks that train so that they can be averaged, in JAX", fontsize=25, color=INK)
    sketch(figure.add_axes((0.03, 0.03, 0.52, 0.66)))
    measured(figure.add_axes((0.63, 0.12, 0.33, 0.5)))
    return figure


def main() -> None:
    """Writes both pictures, without anything that changes from one time to the next."""
    for name, figure in (("idea", idea()), ("card", card())):
        figure.savefig(FOLDER / f"{name}.png", dpi=160 if name == "idea" else 100, metadata={"Software": None})


if __name__ == "__main__":
    main()

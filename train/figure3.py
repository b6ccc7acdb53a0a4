"""Figure 3's idea (arXiv 2402.01342) counted: which permutation symmetries of a hidden layer are left when weights are fixed.

Shows: the mean number of exact symmetries of a layer under Bernoulli masks, by brute force over all h! permutations for
h = 2 to 6 and by formula, for anchors of different values (continuous initial values), for anchors of one common value, and for
those whose biases alone are equal (zeros); then the formula alone at the widths people train. A symmetry maps the family
"anchors at their values, the rest anything" to itself (`tna_jax.theory.symmetries`). The picture is ours, not the paper's figure.
Hardware: CPU, one core. Minutes: about 1 (`--full`: about 8, 10 times the masks, estimated).
Command: python -m train figure3
Expected, over 5 seeds of 400 masks each: brute force minus formula has mean -0.1 and std 1.05 standard errors over 128 points. Of 720
symmetries of 6 units with different values are left: 94.5 ± 5.8 at ratio 0.1, 1.36 ± 0.09 at 0.4, 1.00 from 0.7 on. A layer of 512 units
between layers of 512 has one anchor-free unit left in expectation at ratio 0.61 %, and 1e-225 at the default 0.4.

What it means: at the ratios and widths in use no exact symmetry is left, so exact symmetry cannot be what ratios of 0.2 and 0.8 differ in.
What the ratio controls in practice is approximate symmetry: how far a permuted network is from one that fits the anchors.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from tna_jax.theory import symmetries

SEEDS = (0, 1, 2, 3, 4)
WIDTHS = (2, 3, 4, 5, 6)
RATIOS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FAN_IN, FAN_OUT = 2, 1
ENTRIES = FAN_IN + 1 + FAN_OUT
KINDS = {  # entries of a unit with anchors of (different, equal) values
    "different values": (ENTRIES, 0),
    "different values, equal biases": (ENTRIES - 1, 1),
    "one value": (0, ENTRIES),
}
LAYERS = {  # units, entries of a unit: fan-in + bias + fan-out
    "16 channels, 3x3 between 16 (ResNet20)": (16, 9 * 16 + 1 + 9 * 16),
    "25 units, 784 in, 10 out": (25, 784 + 1 + 10),
    "512 units between 512": (512, 512 + 1 + 512),
    "1600 units between 1600": (1600, 1600 + 1 + 1600),
}
FINE = tuple(np.logspace(-5, np.log10(0.8), 60).tolist())


def run(full: bool = False) -> dict[str, Any]:
    """Brute-force counts of every kind, width, ratio and seed with the formula beside them, and the formula at real widths."""
    masks = 4000 if full else 400
    todo = track(list(itertools.product(KINDS, WIDTHS, RATIOS, SEEDS)), "masks, brute force", console=console)
    rows = [cell(kind, h, ratio, seed, masks) for kind, h, ratio, seed in todo]
    layers = [
        {
            "layer": name,
            "units": h,
            "entries": k,
            "ratio_of_one_free_unit": 1 - h ** (-1 / k),
            "log10_free_units_at_default": math.log10(h) + k * math.log10(0.6),
            "free_units": symmetries.expected_free_units(h, FINE, k),
            "chance_of_a_swap": symmetries.chance_of_a_swap(h, FINE, k),
        }
        for name, (h, k) in LAYERS.items()
    ]
    return {"masks": masks, "seeds": SEEDS, "fan_in": FAN_IN, "fan_out": FAN_OUT, "rows": rows, "fine_ratios": FINE,
            "layers": layers, "summary": summary(rows)}  # fmt: skip


def cell(kind: str, h: int, ratio: float, seed: int, masks: int) -> dict[str, Any]:
    """The mean and spread over masks of the number of permutations that brute force finds, and the formula's mean."""
    different, equal = KINDS[kind]
    generator = np.random.default_rng((seed, h, round(1000 * ratio), different))
    counts = []
    for _ in range(masks):
        mask = generator.random((h, ENTRIES)) >= ratio
        anchors = np.concatenate([generator.normal(size=(h, different)), np.zeros((h, equal))], axis=1)
        counts.append(len(symmetries.enumerate_symmetries(mask, anchors)))
    formula = symmetries.expected_count(h, ratio, different, equal)
    return {"kind": kind, "h": h, "ratio": ratio, "seed": seed, "masks": masks, "mean": np.mean(counts),
            "std": np.std(counts), "formula": formula}  # fmt: skip


def select(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The rows whose columns have the values of `wanted`."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def over_seeds(rows: list[dict[str, Any]], **wanted: Any) -> tuple[float, float | None, float]:
    """Mean and sample standard deviation over seeds of the brute-force mean, and the formula."""
    found = select(rows, **wanted)
    means = [row["mean"] for row in found]
    return *mean_std(means), found[0]["formula"]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Brute force minus formula over all seeds and masks, in standard errors; n: the points at which counts differ at all."""
    apart = []
    for kind in KINDS:
        for h in WIDTHS:
            for ratio in RATIOS:
                found = select(rows, kind=kind, h=h, ratio=ratio)
                error = np.sqrt(np.mean([row["std"] ** 2 for row in found]) / sum(row["masks"] for row in found))
                if error > 0:
                    apart.append((np.mean([row["mean"] for row in found]) - found[0]["formula"]) / error)
    return {**mean_std(apart)._asdict(), "largest": np.max(np.abs(apart)), "n": len(apart)}


def table(result: dict[str, Any]) -> None:
    """Prints the counts of the widest layer for each kind and ratio, and the formula at real widths."""
    h = max(WIDTHS)
    title = (
        f"exact symmetries of {h} units (of {math.factorial(h)}), fan-in {FAN_IN}, bias, fan-out {FAN_OUT}: "
        f"brute force, mean ± std over {len(SEEDS)} seeds of {result['masks']} masks (formula)"
    )
    rows = []
    for ratio in RATIOS:
        cells = (over_seeds(result["rows"], kind=kind, h=h, ratio=ratio) for kind in KINDS)
        rows.append([f"{ratio:g}", *(f"{format_mean_std([mean, std], 2)} ({form:.2f})" for mean, std, form in cells)])
    show_table(Table(title, ["ratio", *KINDS], rows))
    found = (
        "brute force minus formula: mean {mean:.2f}, std {std:.2f}, largest {largest:.2f} standard errors at {n} points"
    )
    print(found.format(**result["summary"]))
    real = []
    for layer in result["layers"]:
        at_default = f"1e{layer['log10_free_units_at_default']:.0f}"
        real.append([layer["layer"], str(layer["entries"]), f"{layer['ratio_of_one_free_unit']:.2%}", at_default])
    heads = ["layer", "entries of a unit", "ratio with 1 free unit left", "free units at 0.4"]
    show_table(Table("the formula at real widths, anchors of different values", heads, real))


def figure(result: dict[str, Any], file: Path) -> None:
    """The idea as a drawing, counts for anchors of different and of one value, and free units at real widths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8}):
        grid, axes = plt.subplots(2, 2, figsize=(7.2, 6.6), layout="constrained")
        _schematic(axes[0, 0])
        _counts(axes[0, 1], result, "different values")
        axes[0, 1].set_title("b. anchors of different values")
        _counts(axes[1, 0], result, "one value")
        axes[1, 0].set_title("c. anchors of one common value")
        axes[1, 0].legend(frameon=False, loc="upper center", ncols=2)
        _real(axes[1, 1], result)
        for axis in axes.ravel()[1:]:
            axis.grid(alpha=0.3, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
        grid.savefig(file, dpi=160)
        plt.close(grid)


def _schematic(axis: Any) -> None:
    """Four hidden units; heavy lines are anchors. The two without any can be swapped."""
    anchored = {("x0", 1), ("x1", 3), ("y", 3)}
    where = {"x0": (0, 2.2), "x1": (0, 0.8), "y": (2, 1.5)} | {i: (1, 3.0 - i) for i in range(4)}
    for i in range(4):
        for end in ("x0", "x1", "y"):
            fixed = (end, i) in anchored
            axis.plot(*zip(where[end], where[i], strict=True), color="black" if fixed else "#9a9a9a",
                      linewidth=2.6 if fixed else 0.8, linestyle="-" if fixed else "--", zorder=1)  # fmt: skip
    for node, (x, y) in where.items():
        tied = any(unit == node for _, unit in anchored)
        axis.scatter(x, y, s=260, facecolor="#d0d0d0" if tied else "white", edgecolor="black", zorder=2)
        axis.text(x, y, str(node + 1) if isinstance(node, int) else "", ha="center", va="center", zorder=3)
    arrow = {
        "arrowstyle": "<->",
        "color": "#1b6ca8",
        "linewidth": 1.8,
        "connectionstyle": "arc3,rad=-0.5",
        "shrinkA": 8,
        "shrinkB": 8,
    }
    axis.annotate("", where[0], where[2], arrowprops=arrow)
    axis.text(1.5, 3.0, "this swap\nis left", color="#1b6ca8", va="center")
    axis.plot([], [], color="black", linewidth=2.6, label="anchored")
    axis.plot([], [], color="#9a9a9a", linewidth=0.8, linestyle="--", label="trainable")
    axis.legend(frameon=False, loc="lower center", ncols=2)
    axis.set(xlim=(-0.25, 2.25), ylim=(-0.9, 3.4), title="a. units 2 and 4 are held by anchors")
    axis.set_axis_off()


def _counts(axis: Any, result: dict[str, Any], kind: str) -> None:
    dense = np.linspace(0, 1, 101)
    for i, (h, marker) in enumerate(zip(WIDTHS, "osD^v", strict=True)):
        color = ("#000000", "#1b6ca8", "#c7522a", "#4a8c3f", "#7a3f99")[i]
        means, stds, _ = np.array([over_seeds(result["rows"], kind=kind, h=h, ratio=r) for r in RATIOS]).T
        axis.plot(dense, [symmetries.expected_count(h, r, *KINDS[kind]) for r in dense], color=color, linewidth=1)
        points = {"marker": marker, "markersize": 4.5, "linestyle": "none", "capsize": 2, "label": f"h = {h}"}
        axis.errorbar(RATIOS, means, stds, color=color, **points)
    axis.set(
        yscale="log", xlabel="ρ, share of anchored weights", ylabel="exact symmetries left (mean)", ylim=(0.8, 1500)
    )


def _real(axis: Any, result: dict[str, Any]) -> None:
    for layer, line in zip(result["layers"], ("-", "--", "-.", ":"), strict=True):
        shown = f"h {layer['units']}, k {layer['entries']}"
        axis.plot(result["fine_ratios"], layer["free_units"], color="black", linestyle=line, label=shown)
    axis.axhline(1, color="#1b6ca8", linewidth=1)
    axis.axvline(0.4, color="#c7522a", linewidth=1)
    axis.text(0.36, 3e3, "default ρ", color="#c7522a", ha="right", va="center", fontsize=8)
    axis.set(xscale="log", yscale="log", ylim=(1e-6, 1e4), xlim=(1e-5, 1), title="d. at real widths: h (1 − ρ)$^k$")
    axis.set(xlabel="ρ, share of anchored weights", ylabel="anchor-free units left (mean)")
    axis.legend(frameon=False, loc="lower left")

"""Which anchors work best? Kinds of masks and values of anchors at one anchored count, from different initializations.

Shows: accuracy of two networks against accuracy of their average, for anchors drawn in different ways: each weight by itself (the
  paper's), an exact count, whole units, first / middle / last layers only, no biases; soft anchors; anchors that weigh more or
  less than initial values (scale 0.25 to 3); anchors from N(0, scale^2) for all layers alike (W-asymmetric networks, Lim et al.
  2024, arXiv 2405.20231, at our count); trainable weights that start small beside the anchors, and a warm-up of the learning
  rate (ours).
Hardware: two CPU cores, about 30 minutes. `--full`: whole data sets, 30 epochs.
Command: `python -m train anchors`
Expected: heavier anchors (scale 1.5 to 2), and small trainable weights beside them, close most of the barrier; which
  weights are anchored matters less. Mean and sample standard deviation over 5 pairs.
Data: Fashion-MNIST MLP 4x256, 8,000 examples, 6 epochs; CIFAR-10 CNN, 2,000 examples, 10 epochs. Anchored share of all weights
  for every row: 0.4 (layers: of all weights too, as far as these layers reach).
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tna_jax import trees
from tna_jax.programs.lmc.options import LmcOptions
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.terminal import show_table
from tna_jax.programs.training.setup import load
from train.cells import MEASURES, cell, find, measured
from train.plots import GREYS, MARKS, labels_beside, page

SHARE = 0.4
"""Of all weights, anchored."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("Fashion-MNIST, MLP 4x256", {"dataset": "fashion_mnist", "width": 256, "train_examples": 8000, "epochs": 6, "batch_size": 64,
                                         "learning_rate": 0.05}),
    "cnn": ("CIFAR-10, CNN", {"dataset": "cifar10", "model": "cnn", "train_examples": 2000, "test_examples": 2000,
                              "epochs": 10, "batch_size": 64, "learning_rate": 0.05}),
}  # fmt: skip
SHARED: dict[str, Any] = {"init": "different", "methods": ("tna",), "alphas": (5.0,)}
FULL: dict[str, Any] = {"train_examples": None, "test_examples": None, "epochs": 30, "schedule": "cosine", "seeds": 5}
LAYERS = {
    "mlp": {"first": "Dense_[01]/", "middle": "Dense_[123]/", "last": "Dense_[1234]/"},
    "cnn": {"first": "conv", "middle": "conv[23]/|dense/", "last": "conv3/|dense/|head/"},
}
"""The fewest layers from the front, the middle and the back that hold the anchored share, and a part of them trainable."""


@dataclasses.dataclass(frozen=True)
class AnchorVariant:
    """A row: how anchors are drawn and valued."""

    group: str
    label: str
    options: dict[str, Any]


def recipes(case: str) -> dict[str, AnchorVariant]:
    """The rows of a case by name."""
    found = {
        "bernoulli": AnchorVariant("mask", "each weight", {}),
        "exact": AnchorVariant("mask", "exact count", {"anchors": "exact"}),
        "neurons": AnchorVariant("mask", "whole units", {"anchors": "neurons"}),
        **{part: AnchorVariant("mask", f"{part} layers", {"where": where}) for part, where in LAYERS[case].items()},
        "kernels": AnchorVariant("mask", "no biases", {"where": "kernel"}),
        "soft": AnchorVariant("soft", "soft 0.2", {"soft": 0.2}),
    }
    for scale in (0.25, 0.5, 2.0, 3.0):
        found[f"scale{scale:g}"] = AnchorVariant("scale", f"scale {scale:g}", {"anchor_scale": scale})
    for scale in (0.25, 0.5, 1.0, 2.0, 3.0):
        options = {"anchor_values": "normal", "anchor_scale": scale}
        found[f"normal{scale:g}"] = AnchorVariant("N(0, scale²)", f"N(0, {scale:g}²)", options)
    for anchor, trainable in ((1.0, 0.25), (1.5, 0.5), (1.5, 0.25)):
        options = {"anchor_scale": anchor, "trainable_scale": trainable}
        found[f"small{anchor:g}_{trainable:g}"] = AnchorVariant(
            "small start", f"{anchor:g}, trainable {trainable:g}", options
        )
    found["warmup"] = AnchorVariant("warm-up", "warm-up", {"warmup_epochs": 2.0})
    options = {"where": "kernel", "anchor_scale": 1.5, "trainable_scale": 0.1, "warmup_epochs": 2.0}
    found["recipe"] = AnchorVariant("warm-up", "1.5, trainable 0.1, warm-up", options)
    if case == "cnn":  # the rows that differ on the MLP, within the minutes
        kept = ("bernoulli", "neurons", "kernels", "soft", "scale2", "normal0.25", "small1.5_0.25", "warmup", "recipe")
        found = {name: found[name] for name in kept}
    return found


def ratio_within(settings: LmcOptions) -> float:
    """The ratio in the layers that `where` selects that anchors `SHARE` of all weights."""
    _, _, init = load(settings)
    leaves = trees.named_leaves(jax.eval_shape(init, jax.random.key(0))[0])
    sizes = {trees.name(path): int(np.prod(leaf.shape)) for path, leaf in leaves}
    chosen = sum(size for name, size in sizes.items() if settings.where is None or re.search(settings.where, name))
    return SHARE * sum(sizes.values()) / chosen


def run(full: bool = False) -> dict[str, Any]:
    """The cells."""
    made: dict[str, Any] = {}
    for case, (title, shared) in CASES.items():
        rows = {}
        for name, recipe in recipes(case).items():
            options = {**SHARED, **shared, **(FULL if full else {}), **recipe.options}
            settings = LmcOptions(**options)
            ratio = round(ratio_within(settings), 6)
            settings = dataclasses.replace(settings, ratios=(ratio,))
            found = cell("anchors" + ("_full" if full else ""), f"{case}_{name}", settings)
            rows[name] = {"group": recipe.group, "label": recipe.label, **found}
        plain = LmcOptions(**{**SHARED, **shared, **(FULL if full else {}), "ratios": (0.0,)})
        rows["none"] = {"group": "none", "label": "no anchors", **cell("anchors", f"{case}_none", plain)}
        made[case] = {"title": title, "rows": rows}
    return {"share": SHARE, "cases": made}


def figure(result: dict[str, Any], file: Path) -> None:
    """Accuracy of the midpoint against accuracy of the ends, a point for each recipe, the best toward the upper right."""
    with page(file, 1, 2, width=5.2, height=4.2) as axes:
        for axis, case in zip(axes[0], result["cases"].values(), strict=True):
            groups = list(dict.fromkeys(row["group"] for row in case["rows"].values()))
            points = []
            for name, row in case["rows"].items():
                line = find(row, init="different", method="tna")
                if line is None:
                    continue
                (x, dx), (y, dy) = line["accuracy_ends"], line["accuracy_midpoint"]
                k = groups.index(row["group"])
                axis.errorbar(x, y, xerr=dx, yerr=dy, marker=MARKS[k], color=GREYS[k % len(GREYS)], markersize=5,
                              capsize=2, linewidth=0.7, linestyle="",
                              label=row["group"] if axis is axes[0, 1] and name == _first(case, row["group"]) else None)  # fmt: skip
                points.append((x, y, row["label"]))
            low, high = axis.get_xlim()
            axis.plot([low, high], [low, high], color="black", linewidth=0.7, linestyle=":", label="no barrier")
            labels_beside(axis, points)
            diverged = [
                row["label"] for row in case["rows"].values() if find(row, init="different", method="tna") is None
            ]
            note = f"\nnot drawn, diverged: {', '.join(diverged)}" if diverged else "\n"
            axis.set_title(f"{case['title']}, {result['share']:.0%} anchored{note}", loc="left", fontsize=8)
            axis.set_xlabel("test accuracy, ends", fontsize=8)
        axes[0, 0].set_ylabel("test accuracy, midpoint", fontsize=8)
        axes[0, 1].legend(fontsize=7, frameon=False, loc="upper left")


def _first(case: dict[str, Any], group: str) -> str:
    rows: dict[str, dict[str, Any]] = case["rows"]
    return next(name for name, row in rows.items() if row["group"] == group and find(row) is not None)


def table(result: dict[str, Any]) -> None:
    """Every recipe, the best midpoint first."""
    for case in result["cases"].values():
        rows = []
        found = {name: find(row) for name, row in case["rows"].items()}
        for name in sorted(
            found, key=lambda name: -(found[name] or {"accuracy_midpoint": [0]})["accuracy_midpoint"][0]
        ):
            line = found[name]
            count = str(line["n"] if line else 0)
            rows.append([case["rows"][name]["label"], count, *(measured(line, measure) for measure in MEASURES)])
        heads = ["anchors", "n", *(measure.replace("_", " ") for measure in MEASURES)]
        title = f"{case['title']}, different initialization: test set, mean ± std over pairs"
        show_table(Table(title, heads, rows))

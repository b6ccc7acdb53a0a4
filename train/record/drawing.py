"""Figures and tables of the record: frontier, what a barrier goes with, paths, and when in training barriers arise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import MeanStd, finite_mean_std, format_mean_std
from tna_jax.programs.reports.terminal import show_table
from train.plots import GREYS, MARKS, page

Rows = list[dict[str, Any]]
PAIRS_FOR_A_CLAIM = 5
RIVAL = "w_asym"
COLUMNS = {
    "ends: loss": lambda row: np.mean([row["test"]["loss"][0], row["test"]["loss"][-1]]),
    "accuracy": lambda row: np.mean([row["test"]["accuracy"][0], row["test"]["accuracy"][-1]]),
    "midpoint: loss": lambda row: row["test"]["loss"][len(row["test"]["loss"]) // 2],
    "accuracy ": lambda row: row["test"]["accuracy"][len(row["test"]["accuracy"]) // 2],
    "loss barrier": lambda row: row["test"]["loss_barrier"],
    "worst on the path": lambda row: row["test"]["loss_barrier_worst"],
    "accuracy barrier": lambda row: row["test"]["accuracy_barrier"],
    "after one temperature": lambda row: row["calibrated"]["loss_barrier"],
}
WHY = {
    "loss barrier": COLUMNS["loss barrier"],
    "beta": lambda row: row["beta_mean"],
    "cosine of the trained parts": lambda row: row["trained_cosine"],
    "at the start": lambda row: row["start"]["trained_cosine"],
    "distance": lambda row: row["distance"],
    "at the start ": lambda row: row["start"]["distance"],
    "units moved by matching": lambda row: row["matching"].get("moved"),
    "loss barrier after it": lambda row: row["matching"].get("loss_barrier"),
}


def stages(case: dict[str, Any]) -> list[int]:
    """Returns the epochs at which everything was measured of some row, ascending."""
    return sorted({e["epoch"] for entries in case["blocks"].values() for e in entries if e["complete"]})


def rows_at(case: dict[str, Any], epoch: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns what was measured after an epoch: by row, in the order of the settings, then by the number of the pair."""
    found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in case["labels"]}
    for block, entries in case["blocks"].items():
        for entry in entries:
            for row in entry["rows"] if entry["epoch"] == epoch else ():
                found[row["row"]][int(block.rsplit("_", 1)[1])] = row
    return {name: pairs for name, pairs in found.items() if pairs}


def summary(pairs: dict[int, dict[str, Any]], value: Any) -> MeanStd:
    """Mean and sample standard deviation over pairs."""
    return finite_mean_std([value(row) for row in pairs.values()])


def compared(case: dict[str, Any], epoch: int, rival: str = RIVAL) -> Iterator[tuple[str, int, float, float]]:
    """Yields for each row with enough pairs in common with `rival`: its name, n, the mean difference of the loss barrier, p of a paired t-test."""
    rows = rows_at(case, epoch)
    for name, pairs in rows.items():
        common = sorted(pairs.keys() & rows.get(rival, {}).keys())
        if name == rival or len(common) < PAIRS_FOR_A_CLAIM:
            continue
        both = [[of[seed]["test"]["loss_barrier"] for seed in common] for of in (pairs, rows[rival])]
        difference = np.subtract(both[0], both[1])
        yield name, len(common), float(difference.mean()), float(stats.ttest_rel(both[0], both[1]).pvalue)


def tables(case: dict[str, Any]) -> list[Table]:
    """For each stage: what the pairs reach, and what goes with their barriers."""
    built = []
    for epoch in stages(case):
        rows = rows_at(case, epoch)
        for columns in (COLUMNS, WHY):
            lines = [
                [
                    case["labels"][name],
                    str(len(pairs)),
                    *(
                        format_mean_std(summary(pairs, value), 4 if "barrier" in column else 3)
                        for column, value in columns.items()
                    ),
                ]
                for name, pairs in rows.items()
            ]
            caption = f"{case['title']}: test set after epoch {epoch} of {case['epochs']}, mean ± std over n pairs"
            built.append(Table(caption, ["setting", "n", *(name.strip() for name in columns)], lines))
    return built


def table(result: dict[str, Any]) -> None:
    """Every table, and what may be claimed of them."""
    for case in result["cases"].values():
        for built in tables(case):
            show_table(built)
        for epoch in stages(case):
            for name, n, difference, p in compared(case, epoch):
                print(
                    f"epoch {epoch}, {case['labels'][name]} against {case['labels'][RIVAL]}: loss barrier {difference:+.4f} over {n} pairs, "
                    f"paired t-test p = {p:.2g}"
                )


def figure(result: dict[str, Any], file: Path) -> None:
    """A line of axes for each case: frontier, barrier over beta and over the cosine, paths, barrier over epochs; and what the marks mean."""
    cases = [case for case in result["cases"].values() if stages(case)]
    with page(file, max(1, len(cases)), 6, width=3.0, height=3.0) as axes:
        for line, case in zip(axes, cases, strict=False):
            epoch = stages(case)[-1]
            rows = rows_at(case, epoch)
            looks = {name: (GREYS[i % len(GREYS)], MARKS[i % len(MARKS)]) for i, name in enumerate(case["labels"])}
            _against(line[0], rows, looks, COLUMNS["ends: loss"], "test loss of the ends")
            _against(line[1], rows, looks, WHY["beta"], "beta: trained over anchored, mean of layers")
            _against(line[2], rows, looks, WHY["cosine of the trained parts"], "cosine of the trained parts")
            _paths(line[3], rows, looks)
            _over_epochs(line[4], case, looks)
            _same_barriers(line[:3])
            line[0].set_title(f"{case['title']}, after epoch {epoch} of {case['epochs']}", loc="left", fontsize=8)
            line[0].set_ylabel("test loss barrier at the midpoint", fontsize=8)
            _legend(line[5], rows, case["labels"], looks)


def _legend(axis: Any, rows: dict[str, Any], labels: dict[str, str], looks: dict[str, Any]) -> None:
    for name, pairs in rows.items():
        color, mark = looks[name]
        axis.plot(
            [], [], color=color, marker=mark, markersize=5, linewidth=0.9, label=f"{labels[name]}, n = {len(pairs)}"
        )
    axis.axis("off")
    axis.legend(loc="center left", fontsize=6.5, frameon=False)


def _against(axis: Any, rows: dict[str, Any], looks: dict[str, Any], value: Any, label: str) -> None:
    for name, pairs in rows.items():
        if any(value(row) is None for row in pairs.values()):
            continue
        (x, dx), (y, dy) = summary(pairs, value), summary(pairs, COLUMNS["loss barrier"])
        color, mark = looks[name]
        axis.errorbar(x, y, xerr=dx, yerr=dy, color=color, marker=mark, markersize=5, capsize=2, linewidth=0.7)
    axis.axhline(0, color="black", linewidth=0.6, linestyle=":")
    axis.set_yscale("symlog", linthresh=0.02)
    axis.set_xlabel(label, fontsize=8)


def _same_barriers(axes: Any) -> None:
    """Gives axes of barriers one range, with room around every mark and its spread."""
    low, high = (
        pick(limit)
        for pick, limit in zip((min, max), zip(*(axis.dataLim.intervaly for axis in axes), strict=True), strict=True)
    )
    for axis in axes:
        axis.set_ylim(min(1.8 * low, low / 1.8) - 0.002, max(1.8 * high, high / 1.8) + 0.002)


def _paths(axis: Any, rows: dict[str, Any], looks: dict[str, Any]) -> None:
    for name, pairs in rows.items():
        curves = np.array([row["test"]["loss"] for row in pairs.values()], float)
        places = np.linspace(0, 1, curves.shape[1])
        color, mark = looks[name]
        axis.plot(places, curves.mean(0), color=color, marker=mark, markersize=3, linewidth=0.9)
    axis.set_xlabel("place on the path", fontsize=8)
    axis.set_ylabel("test loss", fontsize=8)


def _over_epochs(axis: Any, case: dict[str, Any], looks: dict[str, Any]) -> None:
    epochs = sorted({entry["epoch"] for entries in case["blocks"].values() for entry in entries})
    by_epoch = {epoch: rows_at(case, epoch) for epoch in epochs}
    for name, (color, mark) in looks.items():
        points = [
            (epoch, summary(rows[name], COLUMNS["loss barrier"]).mean)
            for epoch, rows in by_epoch.items()
            if name in rows
        ]
        if points:
            axis.plot(*zip(*points, strict=True), color=color, marker=mark, markersize=3, linewidth=0.9)
    axis.axhline(0, color="black", linewidth=0.6, linestyle=":")
    axis.set_yscale("symlog", linthresh=0.02)
    axis.set_xlabel("epoch", fontsize=8)

"""Every merging method on four text tasks fine-tuned from one MiniLM, with shared anchors in the fine-tuning and without.

Shows: accuracy of one merged body on all tasks, each under its own head, by merging method; beside the base and the bodies
  fine-tuned apart; and, the question of the anchors, whether bodies that were fine-tuned with shared anchors merge better.
Hardware: two CPU cores, about 50 minutes when nothing else runs. `--full` is for a GPU; it has not been run.
Command: `python -m fusion merging_methods`
Expected: see `fusion/results/merging_methods.json`. Mean and sample standard deviation over 3 seeds (examples, data order, masks,
  random drops; the base is one); differences paired by seed.
Data: SST-2, CR, SUBJ, TREC, from `--data-dir`'s default places (TNA_DATA_DIR); 32 tokens. MiniLM: see `fusion.minilm`.
  The table of words is not trained. A task's head is fitted to the base's features and then stays. Strengths are chosen on held-out
  examples of the first seed, by the mean accuracy over tasks, once without anchors and once with.
"""

import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fusion import finetuned_bodies, merging_scores, minilm
from fusion.merging_scores import ENTRIES, Setting
from tna_jax.io.json_files import to_json, write_json
from tna_jax.masks import AnchorRecipe, Mask, Params
from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train.plots import GREYS, page

SMALL: dict[str, Any] = {
    "tasks": ("sst2", "cr", "subj", "trec"), "ratios": (0.0, 0.4), "seeds": 3, "trained_layers": 3, "length": 32, "steps": 48, "batch_size": 16,
    "learning_rate": 1.5e-4, "warmup": 5, "head_examples": 512, "held_out_examples": 64, "test_examples": 150,
}  # fmt: skip
FULL: dict[str, Any] = {
    **SMALL,
    "seeds": 5,
    "steps": 200,
    "warmup": 20,
    "held_out_examples": 500,
    "test_examples": 2000,
}
BASE, APART = "base", "fine-tuned apart"


def run(full: bool = False) -> dict[str, Any]:
    """Fine-tunes all bodies, merges them by every method, and scores them; resumes with what is there."""
    settings = FULL if full else SMALL
    encoder = minilm.load(settings["length"], settings["trained_layers"])
    tasks = finetuned_bodies.tasks(encoder, settings)
    by_seed = [finetuned_bodies.finetuned(encoder, tasks, seed, settings) for seed in range(settings["seeds"])]
    examples = f"{settings['held_out_examples']}_{settings['test_examples']}"
    kept = Kept(finetuned_bodies.folder(settings) / f"scores_{examples}.json")
    rows: list[dict[str, Any]] = []
    facts = []
    for seed, bodies in enumerate(by_seed):
        base = Setting(encoder, tasks, bodies[0]._replace(models=[encoder.body] * len(tasks)), seed)
        scores = kept(f"{seed} {BASE}", lambda s=base: _apart(s))
        rows.append({"seed": seed, "ratio": None, "method": BASE, "strength": None, "accuracy": scores})
        for ratio, at_ratio in zip(settings["ratios"], bodies, strict=True):
            setting = Setting(encoder, tasks, at_ratio, seed)
            mask = AnchorRecipe(ratio=ratio, seed=seed).draw(encoder.body)
            facts.append({"seed": seed, "ratio": ratio, **geometry(encoder.body, at_ratio.models)})
            where = f"{seed} {ratio:g}"
            apart = kept(f"{where} {APART}", lambda s=setting: _apart(s))
            rows.append({"seed": seed, "ratio": ratio, "method": APART, "strength": None, "accuracy": apart})
            for method in ENTRIES:
                chosen = f"held-out {ratio:g} {method}"
                row = kept(f"{where} {method}", lambda s=setting, c=chosen, m=method, a=mask: _row(s, m, c, a, kept))
                rows.append({"seed": seed, "ratio": ratio, "method": method, **row})
    contents: dict[str, Any] = to_json({
        "config": settings, "entries": {name: {"strengths": entry.strengths, "looks_at": entry.looks_at} for name, entry in ENTRIES.items()},
        "adamerging": merging_scores.ADAPTIVE, "fisher_examples": merging_scores.FISHER_EXAMPLES,
        "regmean_examples": merging_scores.GRAM_EXAMPLES, "parameters": _size(encoder.body),
        "tasks": [{"name": task.name, "title": task.title, "classes": task.num_classes, "held_out": len(task.held_out.labels),
                   "test": len(task.test.labels), "how_split": task.how_split} for task in tasks],
        "held_out": kept.values("held-out "), "geometry": facts, "rows": rows, "summary": summary(rows, settings["ratios"]),
    })  # fmt: skip
    return contents


class Kept:
    """Values by name in a file: what is there is not computed again."""

    def __init__(self, file: Path):
        self.file = file
        self.held: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def __call__(self, name: str, compute: Any) -> Any:
        if name not in self.held:
            console.print(name)
            self.held[name] = to_json(compute())
            write_json(self.file, self.held)
        return self.held[name]

    def values(self, prefix: str) -> dict[str, Any]:
        """Returns the values whose names begin with `prefix`, which is cut off."""
        return {name.removeprefix(prefix): value for name, value in self.held.items() if name.startswith(prefix)}


def _apart(setting: Setting) -> list[float]:
    """Accuracy of each body on its own task."""
    parts = zip(setting.bodies.models, setting.bodies.heads, setting.tasks, strict=True)
    return [merging_scores.accuracies(setting.encoder, body, [head], [task.test])[0] for body, head, task in parts]


def _row(setting: Setting, method: str, chosen: str, mask: Mask, kept: Kept) -> dict[str, Any]:
    """Merges by one method, chooses its strength where that was not done yet, and scores the result."""
    entry, base = ENTRIES[method], setting.encoder.body
    start = time.perf_counter()
    merged = entry.merge(setting)
    seconds, strength = time.perf_counter() - start, None
    if entry.strengths:
        held_out = kept(chosen, lambda: merging_scores.choose(setting, merged, entry.strengths))
        strength = float(max(held_out, key=lambda key: held_out[key]))
        merged = merging_scores.moved(base, merged, strength)
    test = [task.test for task in setting.tasks]
    scores = merging_scores.accuracies(setting.encoder, merged, setting.bodies.heads, test)
    return {
        "strength": strength, "seconds": seconds, "anchors_moved": anchors_moved(mask, base, merged), "accuracy": scores,
    }  # fmt: skip


def anchors_moved(mask: Mask, base: Params, merged: Params) -> int:
    """Counts anchored entries whose bits are not those of the base."""
    leaves = zip(*(map(np.asarray, jax.tree.leaves(tree)) for tree in (mask, base, merged)), strict=True)
    return sum(int((b.view(np.uint32) != m.view(np.uint32))[~trainable].sum()) for trainable, b, m in leaves)


def geometry(base: Params, models: list[Params]) -> dict[str, float]:
    """Computes the mean norm of the task vectors, and the mean cosine between two of them."""
    vectors = [
        np.concatenate([np.ravel(m - b) for m, b in zip(*map(jax.tree.leaves, (model, base)), strict=True)])
        for model in models
    ]
    norms = [float(np.linalg.norm(vector)) for vector in vectors]
    cosines = [float(vectors[i] @ vectors[j]) / (norms[i] * norms[j]) for i, j in combinations(range(len(models)), 2)]
    return {"norm": float(np.mean(norms)), "cosine": float(np.mean(cosines))}


def _size(params: Params) -> int:
    return sum(int(leaf.size) for leaf in jax.tree.leaves(params))


def summary(rows: list[dict[str, Any]], ratios: tuple[float, ...]) -> list[dict[str, Any]]:
    """Computes for each method and ratio the mean over tasks and each task, as [mean, standard deviation] over seeds.

    `gain` is that of the mean over tasks less the one of the first ratio (no anchors), seed by seed.
    """
    held = {(row["method"], row["ratio"], row["seed"]): np.array(row["accuracy"]) for row in rows}
    lines = []
    for method, ratio in dict.fromkeys((row["method"], row["ratio"]) for row in rows):
        seeds = sorted(seed for m, r, seed in held if (m, r) == (method, ratio))
        scores = np.stack([held[method, ratio, seed] for seed in seeds])
        line = {"method": method, "ratio": ratio, "n": len(seeds), "mean": list(mean_std(scores.mean(1))),
                "tasks": [list(mean_std(column)) for column in scores.T]}  # fmt: skip
        strength = {row["strength"] for row in rows if (row["method"], row["ratio"]) == (method, ratio)}
        line["strength"] = strength.pop()
        if ratio in ratios[1:]:
            plain = np.stack([held[method, ratios[0], seed] for seed in seeds])
            line["gain"] = list(mean_std((scores - plain).mean(1)))
        lines.append(line)
    return sorted(lines, key=lambda line: line["method"] not in (BASE, APART))


def figure(result: dict[str, Any], file: Path) -> None:
    """The mean accuracy over tasks of every method, without anchors and with, between the base and fine-tuning apart."""
    methods = list(result["entries"])
    ratios = result["config"]["ratios"]
    with page(file, 1, 1, width=6.4, height=0.3 * len(methods) + 1.2) as axes:
        axis = axes[0, 0]
        for i, ratio in enumerate(ratios):
            lines = [find(result, method, ratio) for method in methods]
            means, spreads = np.array([[value or 0.0 for value in line["mean"]] for line in lines]).T
            axis.errorbar(means, np.arange(len(methods)) + 0.3 * (i - 0.5), xerr=spreads, fmt="os"[i], markersize=4.5, capsize=2,
                          color=GREYS[1 - i], label=ratio_name(ratio))  # fmt: skip
            axis.axvline(find(result, APART, ratio)["mean"][0], color=GREYS[1 - i], linewidth=1, linestyle="--",
                         label=f"{APART}, {ratio_name(ratio)}")  # fmt: skip
        axis.axvline(find(result, BASE, None)["mean"][0], color=GREYS[5], linewidth=1, linestyle=":", label=BASE)
        axis.set_yticks(range(len(methods)), methods)
        axis.invert_yaxis()
        axis.set_xlabel("test accuracy, mean over four tasks ± standard deviation over seeds", fontsize=8)
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def ratio_name(ratio: float) -> str:
    """Names a mask ratio."""
    return f"anchors, ratio {ratio:g}" if ratio else "no anchors"


def find(result: dict[str, Any], method: str, ratio: float | None) -> dict[str, Any]:
    """Returns the line of the summary of a method at a mask ratio."""
    return next(line for line in result["summary"] if (line["method"], line["ratio"]) == (method, ratio))


def table(result: dict[str, Any]) -> None:
    """The mean over tasks by method, and every task."""
    show_table(Table("Test accuracy, mean over tasks ± standard deviation over seeds", HEADS, means(result)))
    titles = [task["title"] for task in result["tasks"]]
    show_table(Table("By task", ["method", "ratio", *titles], by_task(result), keys=2))


HEADS = ["method", "no anchors", "anchors", "anchors less none", "strengths"]


def means(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the first table: the base, fine-tuned apart, then the methods, the best first."""
    plain, anchored = result["config"]["ratios"]
    rows = [[BASE, *[format_mean_std(find(result, BASE, None)["mean"], 3)] * 2, "–", "–"]]
    names = sorted(result["entries"], key=lambda name: -find(result, name, plain)["mean"][0])
    for name in (APART, *names):
        lines = [find(result, name, ratio) for ratio in (plain, anchored)]
        strengths = [f"{line['strength']:g}" for line in lines if line["strength"] is not None]
        rows.append([name, *(format_mean_std(line["mean"], 3) for line in lines),
                     format_mean_std(lines[1]["gain"], 3, sign=True), ", ".join(strengths) or "–"])  # fmt: skip
    return rows


def by_task(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the second table."""
    order = [row[0] for row in means(result)]
    lines = sorted(result["summary"], key=lambda line: (order.index(line["method"]), line["ratio"] or 0.0))
    return [
        [line["method"], "" if line["ratio"] is None else f"{line['ratio']:g}", *(format_mean_std(task, 3) for task in line["tasks"])]
        for line in lines
    ]  # fmt: skip

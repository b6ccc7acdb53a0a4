"""Tables of fine-tuned models: soups, ColD Fusion, and what was pretrained for them."""

from typing import Any

from fusion import cold_minilm, soup_dinov2
from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown
from tna_jax.programs.cold.report import cell
from tna_jax.programs.cold.report import find as find_cold
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.soup.report import FUSIONS, difference


def soups(result: dict[str, Any]) -> str:
    """Accuracy of every fusion on the test set, the held-out shifts and their mean, by mask ratio."""
    splits = ["test", "shifted", *result["shifted"]]
    rows = []
    for ratio in dict.fromkeys(line["ratio"] for line in result["summary"]):
        for fusion in FUSIONS:
            found = {
                line["split"]: line for line in result["summary"] if (line["ratio"], line["fusion"]) == (ratio, fusion)
            }
            rows.append([f"{ratio:g}", fusion, *(format_mean_std(found[split]["accuracy"]) for split in splits)])
    return markdown(["ratio", "model", "test", "shifted, mean", *result["shifted"]], rows)


def soup_gains(result: dict[str, Any]) -> str:
    """Soups less the best single model and less the soup without anchors, seed by seed."""
    rows = []
    for fusion in FUSIONS[2:4]:
        for split in ("test", "shifted"):
            for ratio in dict.fromkeys(line["ratio"] for line in result["summary"]):
                single = difference(result["rows"], split, (ratio, fusion), (ratio, "best single"))
                plain = difference(result["rows"], split, (ratio, fusion), (0.0, fusion))
                own = format_mean_std(mean_std(plain)) if ratio else "-"
                rows.append([fusion, split, f"{ratio:g}", format_mean_std(mean_std(single)), own])
    return markdown(["soup", "set", "ratio", "less the best single model", "less the soup without anchors"], rows)


def cold(result: dict[str, Any]) -> str:
    """Means over tasks by mask ratio and iteration."""
    groups = [(kind, seen) for kind in ("fine-tuning", "probe") for seen in (True, False)]
    rows = []
    for ratio in dict.fromkeys(line["ratio"] for line in result["summary"]):
        for number in range(result["config"]["iterations"] + 1):
            found = [find_cold(result, ratio=ratio, iteration=number, kind=kind, seen=seen) for kind, seen in groups]
            rows.append([f"{ratio:g}", str(number), *(cell(line) for line in found)])
    heads = [f"{kind}, {'seen' if seen else 'unseen'}" for kind, seen in groups]
    return markdown(["ratio", "iteration", *heads], rows)


def cold_gains(result: dict[str, Any]) -> str:
    """The last iteration less the start, and less that without anchors: mean over tasks, then over seeds, paired."""
    last, rows = result["config"]["iterations"], []
    seeds = sorted({row["seed"] for row in result["rows"]})
    for kind in ("fine-tuning", "probe"):
        for seen in (True, False):
            found: dict[tuple[float, int], list[float]] = {}
            for row in result["rows"]:
                if (row["iteration"], row["kind"], row["seen"]) == (last, kind, seen):
                    found.setdefault((row["ratio"], row["seed"]), []).append(row["accuracy"])
            means = {key: sum(values) / len(values) for key, values in found.items()}
            for ratio in dict.fromkeys(line["ratio"] for line in result["summary"]):
                line = find_cold(result, ratio=ratio, iteration=last, kind=kind, seen=seen)
                over = [means[ratio, seed] - means[0.0, seed] for seed in seeds]
                own = format_mean_std(mean_std(over)) if ratio else "-"
                rows.append([kind, "seen" if seen else "unseen", f"{ratio:g}", cell(line, "gain"), own])
    return markdown(["score", "tasks", "ratio", f"iteration {last} less the start", "less that without anchors"], rows)


def cold_tasks(result: dict[str, Any]) -> str:
    """Each task, fine-tuned from the checkpoint, and what the last iteration is ahead of that: mean over seeds, paired."""
    last, ratios = result["config"]["iterations"], list(dict.fromkeys(line["ratio"] for line in result["summary"]))
    found = {
        (row["seed"], row["ratio"], row["iteration"], row["task"]): row["accuracy"]
        for row in result["rows"]
        if row["kind"] == "fine-tuning"
    }
    seeds, rows = sorted({key[0] for key in found}), []
    for task in result["tasks"]:
        start = [found[seed, ratios[0], 0, task["name"]] for seed in seeds]
        cells = [format_mean_std(mean_std(start), 3)]
        for ratio in ratios:
            gains = [found[seed, ratio, last, task["name"]] - found[seed, ratio, 0, task["name"]] for seed in seeds]
            cells.append(format_mean_std(mean_std(gains), 3, sign=True))
        rows.append([task["title"], "seen" if task["seen"] else "unseen", *cells])
    return markdown(["task", "", "start", *(f"ratio {ratio:g}" for ratio in ratios)], rows)


def pretrained(result: dict[str, Any]) -> str:
    """Both pretrained models."""
    rows = []
    for kind, found in result["models"].items():
        last = found["epochs"][-1]
        values = [f"{found['parameters']:,}", str(found["config"]["epochs"]), f"{last['loss']:.3f}",
                  f"{found['test']['loss']:.3f}", f"{found['test']['accuracy']:.3f}"]  # fmt: skip
        rows.append([kind, found["what"], *values])
    return markdown(["model", "on", "parameters", "epochs", "training loss", "test loss", "test accuracy"], rows)


TABLES: Tables = {
    "soups": ("soup.json", soups),
    "soup_gains": ("soup.json", soup_gains),
    "soup_dinov2": ("soup_dinov2.json", lambda result: markdown(soup_dinov2.HEADS, soup_dinov2.lines(result))),
    "cold": ("cold.json", cold),
    "cold_gains": ("cold.json", cold_gains),
    "cold_tasks": ("cold.json", cold_tasks),
    "cold_minilm": ("cold_minilm.json", lambda result: markdown(cold_minilm.HEADS, cold_minilm.lines(result))),
    "pretraining": ("pretraining.json", pretrained),
}
"""By the name in the page: the results, and what makes the table of them."""

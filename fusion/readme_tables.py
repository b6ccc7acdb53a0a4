"""Writes the tables of README.md and of the pages in docs/ from the committed results: `python -m fusion.readme_tables`."""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fusion import (
    federated,
    federated_baselines,
    federated_bytes,
    federated_heavy,
    federated_privacy,
    merging_methods,
    summary,
)
from fusion.summary import markdown
from tna_jax.programs.cold.report import cell
from tna_jax.programs.cold.report import find as find_cold
from tna_jax.programs.lmc.report import NAMES, pairs_mean_std, present, select
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.soup.report import FUSIONS, difference
from train import figure5
from train.cells import find
from train.cells import measured as format_measure
from train.record import drawing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = (ROOT / "train" / "results", ROOT / "fusion" / "results", ROOT / "benchmarks" / "results")
MARK = "<!-- table:"
PAGES = (
    "README.md",
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")) if MARK in file.read_text()),
)


def committed(name: str) -> Path:
    """The results file of that name, whichever room holds it."""
    return next(folder / name for folder in RESULTS if (folder / name).is_file())


COLUMNS = {"accuracy_ends": "accuracy, ends", "accuracy_midpoint": "midpoint", "accuracy_barrier": "accuracy barrier",
           "loss_barrier": "loss barrier"}  # fmt: skip


def sweep(result: dict[str, Any]) -> str:
    """The test set of an `lmc.json`: mean ± sample standard deviation over pairs."""
    rows = []
    for init in present(result, "init"):
        for method in present(result, "method"):
            for ratio in present(result, "ratio"):
                if ratio == 0 and method != present(result, "method")[0]:
                    continue
                chosen = select(result, init=init, method=method, ratio=ratio, split="test")
                cells = [format_mean_std(pairs_mean_std(chosen, column), 3) for column in COLUMNS]
                rows.append([init, NAMES[method] if ratio else "no anchors", f"{ratio:g}", *cells])
    return markdown(["initialization", "method", "ratio", *COLUMNS.values()], rows)


def cells_of(line: dict[str, Any] | None) -> list[str]:
    """Number of pairs, and the measures of a line of a cell's summary."""
    if line is None:
        return ["0", *["diverged"] * len(COLUMNS)]
    return [str(line["n"]), *(format_mean_std(line[column], 3) for column in COLUMNS)]


def record(case: str, why: bool = False, stage: int = -1) -> Callable[[dict[str, Any]], str]:
    """The record's rows of a case at one of its stages: what pairs reach, or `why`."""

    def table(result: dict[str, Any]) -> str:
        built = drawing.tables(result["cases"][case])[2 * stage :][int(why)]
        return markdown(built.heads, built.rows)

    return table


def record_claims(case: str, stage: int = -1) -> Callable[[dict[str, Any]], str]:
    """Paired differences of the loss barrier against W-Asym as published."""

    def table(result: dict[str, Any]) -> str:
        chosen = result["cases"][case]
        lines = [
            [chosen["labels"][name], str(n), f"{difference:+.4f}", f"{p:.2g}"]
            for name, n, difference, p in drawing.compared(chosen, drawing.stages(chosen)[stage])
        ]
        return markdown(["setting", "pairs", "loss barrier, less W-Asym's", "p (paired t-test)"], lines)

    return table


def record_prototype(result: dict[str, Any]) -> str:
    """The first prototype at full data: one pair a row, so without a spread."""
    lines = []
    for row in result["rows"]:
        test = row["final"]["test"]
        loss, accuracy = test["loss"], test["accuracy"]
        early = row["after_constant"]["test"]["loss"]
        ends = [(values[0] + values[-1]) / 2 for values in (loss, accuracy, early)]
        numbers = (ends[0], ends[1], loss[2], accuracy[2], early[2] - ends[2], loss[2] - ends[0], ends[1] - accuracy[2])
        matched = row["matching"] or {"moved": None}
        rest = (row["beta_mean"], row["trained_cosine"], matched["moved"])
        lines.append([row["label"], *(f"{n:.3f}" for n in numbers), *("–" if n is None else f"{n:g}" for n in rest)])
    heads = ["setting", "ends: loss", "accuracy", "midpoint: loss", "accuracy", "loss barrier, before the rate falls", "at the end",
             "accuracy barrier", "beta", "cosine of the trained parts", "units moved by matching, of 448"]  # fmt: skip
    return markdown(heads, lines)


def by_case(result: dict[str, Any], ratios: tuple[float, ...] = (), methods: tuple[str, ...] = ()) -> str:
    """Figures 2 and 5: every cell's summary, or what it says of these ratios and methods."""
    rows = []
    for case in result["cells"].values():
        for line in case["summary"]:
            wanted = (not ratios or line["ratio"] in ratios) and (not methods or line["method"] in methods)
            if wanted and (line["ratio"] or line["method"] == "tna"):
                name = NAMES[line["method"]] if line["ratio"] else "no anchors"
                found = line if line["n"] else None
                rows.append([case["title"], line["init"], name, f"{line['ratio']:g}", *cells_of(found)])
    return markdown(["data, network", "initialization", "method", "ratio", "n", *COLUMNS.values()], rows)


def sizes(result: dict[str, Any]) -> str:
    """Figure 4: barriers and end accuracies by size."""
    rows = []
    for case in result["cells"].values():
        size = f"{case['config']['depth']}x{case['config']['width']}"
        for init in ("same", "different"):
            lines = [find(case, init=init, ratio=ratio, method="tna") for ratio in (0.0, 0.4, 0.8)]
            cells = [format_measure(line, column) for column in ("accuracy_barrier", "accuracy_ends") for line in lines]
            rows.append([size, init, *cells])
    heads = [f"{what}, {ratio:g}" for what in ("barrier", "ends") for ratio in (0, 0.4, 0.8)]
    return markdown(["MLP", "initialization", *heads], rows)


def earlier(*results: dict[str, Any]) -> str:
    """First runs, test set: barriers and end accuracies."""
    rows = []
    for result in results:
        config = result["config"]
        name = f"{config['dataset']}, {config['model']}, {config['train_examples']:,} images, {config['epochs']} epochs"
        for init in present(result, "init"):
            cells, n = [], 0
            for column in ("accuracy_barrier", "accuracy_ends"):
                for ratio in (0.0, 0.4, 0.8):
                    chosen = select(result, init=init, method="tna", ratio=ratio, split="test")
                    cells.append(format_mean_std(pairs_mean_std(chosen, column), 3) if chosen else "–")
                    n = max(n, len(chosen))
            rows.append([name, init, str(n), *cells])
    heads = [f"{what}, {ratio:g}" for what in ("barrier", "ends") for ratio in (0, 0.4, 0.8)]
    return markdown(["data, network", "initialization", "n", *heads], rows)


def recipes(case: str) -> Callable[[dict[str, Any]], str]:
    """The anchors of a case, the best midpoint first; those from N(0, scale^2) have a recipe of their own, see `train.record`."""

    def table(result: dict[str, Any]) -> str:
        found = {name: row for name, row in result["cases"][case]["rows"].items() if row["group"] != "N(0, scale²)"}
        lines = {name: find(row) for name, row in found.items()}
        order = sorted(lines, key=lambda name: -(lines[name] or {"accuracy_midpoint": [0]})["accuracy_midpoint"][0])
        rows = [[found[name]["label"], *cells_of(lines[name])] for name in order]
        return markdown(["anchors", "n", *COLUMNS.values()], rows)

    return table


def depths(result: dict[str, Any]) -> str:
    """Midpoints by depth beside the numbers of others."""
    theirs = result["matched_after_training"]
    rows = []
    for case in result["cells"].values():
        for line in case["summary"] if case["recipe"] else ():
            matched = theirs["matched + REPAIR"][theirs["layers"].index(case["layers"])]
            found = [format_mean_std(line[column]) for column in list(COLUMNS)[:3]]
            rows.append([str(case["layers"]), f"{line['ratio']:g}", str(line["n"]), *found, f"{matched:.4f}"])
    heads = ["layers", "ratio", "n", *list(COLUMNS.values())[:3], "matched + REPAIR (theirs, midpoint)"]
    return markdown(heads, rows)


def moves(line: dict[str, Any]) -> list[str]:
    """What matching did."""
    if "sweeps" not in line:
        return ["-", "-"]
    return [format_mean_std(line["sweeps"], 1), format_mean_std(line["moved"], 0)]


def rivals(result: dict[str, Any]) -> str:
    """A row for each method."""
    rows = [[line["population"], line["kind"], *cells_of(line)[:4], *moves(line)] for line in result["lines"]]
    heads = ["networks", "after training", "n", *list(COLUMNS.values())[:3], "sweeps", "units moved"]
    return markdown(heads, rows)


def populations(result: dict[str, Any]) -> str:
    """Averages of N networks."""
    rows = []
    for line in result["lines"]:
        values = [format_mean_std(line[key]) for key in ("fused", "members")]
        rows.append([line["case"], line["method"], str(line["models"]), str(line["n"]), *values])
    return markdown(["data, network", "networks", "N", "groups", "accuracy of their average", "members"], rows)


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


ALTERNATIVES = {
    "one": "one model alone, ours",
    "torch": "one model alone, eager PyTorch",
    "vmap": "`vmap`",
    "map": "`map`",
    "vmap_native": "`vmap`, XLA's (grouped) convolutions",
    "vmap_slices": "`vmap`, convolutions by slices",
    "map_native": "`map`",
    "loop_native": "`loop`",
}
"""What `benchmarks.gpu` compares, in words."""
GPU_NETWORKS = {"mlp": "MLPs", "cnn": "CNNs", "resnet20": "ResNet20s"}


def gpu(*results: dict[str, Any]) -> str:
    """The training throughput of each case of `benchmarks.gpu`."""
    rows = []
    for result in results:
        for section in result["sections"].values():
            for case, alternatives in section.items():
                name, models, precision = case.split("/")
                for key, measured in alternatives.items():
                    times = (1 if key == other else measured[f"times_{other}"] for other in ("one", "torch"))
                    cells = (f"{value:.1f}" if value >= 1 else f"{value:.2f}" for value in times)
                    rows.append(
                        [f"{models} {GPU_NETWORKS[name]}, {precision}", ALTERNATIVES[key], f"{measured['model_images_per_second']:,.0f}", *cells,
                         f"{measured['share_of_limit']:.1%}"]
                    )  # fmt: skip
    heads = ["models", "how", "models x images / s", "times one alone", "times PyTorch", "share of the product rate"]
    return markdown(heads, rows)


def compositions(alpha: float, case: str = "", participation: float = 1.0) -> Callable[[dict[str, Any]], str]:
    """Algorithms and servers with and without anchors at one heterogeneity."""
    return lambda result: markdown(
        federated.HEADS, federated.composition(federated.part(result, case, participation), alpha)
    )


def federated_ratios(result: dict[str, Any]) -> str:
    """FedAvg by mask ratio."""
    return markdown(["ratio", "FedPFN", "FedPNU"], federated.ablation(federated.part(result)))


def federated_readings(result: dict[str, Any]) -> str:
    """The two readings of FedPNU."""
    return markdown(federated.READING_HEADS, federated.readings(federated.part(result)))


def baselines(stage: str) -> Callable[[dict[str, Any]], str]:
    """Five algorithms under the mask schedules, of one stage."""
    return lambda result: markdown(
        federated_baselines.COMPOSITION_HEADS, federated_baselines.composition(result, stage)
    )


def duels(stage: str, case: str) -> Callable[..., str]:
    """The named combinations against every algorithm without anchors, of one stage, with the seeds of the sweep's case."""

    def table(result: dict[str, Any], sweep: dict[str, Any]) -> str:
        both = federated_baselines.with_sweep(result, sweep, stage, case)
        return markdown(federated_baselines.DUEL_HEADS, federated_baselines.duels(both, stage))

    return table


def sweep_verdicts(result: dict[str, Any]) -> str:
    """The best combination against the best without anchors, by setting of the sweep from which it was named."""
    return markdown(federated_baselines.SWEEP_HEADS, federated_baselines.sweep_verdicts(result))


def merged(result: dict[str, Any]) -> str:
    """Every merging method, without anchors and with."""
    return markdown(merging_methods.HEADS, merging_methods.means(result))


def merged_tasks(result: dict[str, Any]) -> str:
    """Every merging method by task."""
    titles = [task["title"] for task in result["tasks"]]
    return markdown(["method", "ratio", *titles], merging_methods.by_task(result))


def merge_speed(result: dict[str, Any]) -> str:
    """`tna merge` beside mergekit, by method."""
    rows = []
    for method, line in result["methods"].items():
        seconds = [f"{statistics.median(line['seconds'][tool]):.1f}" for tool in ("tna_merge", "mergekit")]
        peaks = [f"{line['peak_bytes'][tool] / 1e9:.2f}" for tool in ("tna_merge", "mergekit")]
        values = "other draws" if "random" in line["differs"] else f"{line['largest_difference']:.1e}"
        rows.append([method, *seconds, f"{line['times_as_fast']:.1f}", *peaks, values])
    heads = ["method", "`tna merge`, s", "mergekit, s", "times as fast", "`tna merge`, GB", "mergekit, GB"]
    return markdown([*heads, "largest difference"], rows)


TABLES: dict[str, tuple[str | tuple[str, ...], Callable[..., str]]] = {
    "programs": ((), summary.programs),
    "brief": (("digits_lmc.json", "figure2.json", "figure5.json", "anchors.json"), summary.brief),
    "many": (("multi_fusion.json", "federated.json"), summary.many),
    "claims": (
        (
            "figure2.json",
            "figure4.json",
            "figure5.json",
            "anchors.json",
            "multi_fusion.json",
            "rivals.json",
            "theorem.json",
            "federated.json",
            "soup.json",
            "cold.json",
            "federated_baselines.json",
        ),
        summary.claims,
    ),
    "digits": ("digits_lmc.json", sweep),
    "figure2": ("figure2.json", by_case),
    "figure4": ("figure4.json", sizes),
    "earlier": (("fashion_mnist_lmc.json", "cifar10_cnn_lmc.json", "cifar10_resnet20_lmc.json"), earlier),
    "figure5": ("figure5.json", lambda result: by_case(result, figure5.RATIOS, ("tna",))),
    "anchors_mlp": ("anchors.json", recipes("mlp")),
    "anchors_cnn": ("anchors.json", recipes("cnn")),
    "depth": ("depth.json", depths),
    "rivals": ("rivals.json", rivals),
    "multi_fusion": ("multi_fusion.json", populations),
    "soups": ("soup.json", soups),
    "soup_gains": ("soup.json", soup_gains),
    "cold": ("cold.json", cold),
    "cold_gains": ("cold.json", cold_gains),
    "cold_tasks": ("cold.json", cold_tasks),
    "merging_methods": ("merging_methods.json", merged),
    "merging_tasks": ("merging_methods.json", merged_tasks),
    "merge_methods": ("merge_methods.json", merge_speed),
    "pretraining": ("pretraining.json", pretrained),
    "gpu": (("gpu_mlp.json", "gpu_convolutions.json"), gpu),
    "federated_0.1": ("federated.json", compositions(0.1)),
    "federated_0.5": ("federated.json", compositions(0.5)),
    "federated_half_0.1": ("federated.json", compositions(0.1, participation=0.5)),
    "federated_half_0.5": ("federated.json", compositions(0.5, participation=0.5)),
    "federated_cnn_0.1": ("federated.json", compositions(0.1, "cifar10_cnn")),
    "federated_cnn_0.5": ("federated.json", compositions(0.5, "cifar10_cnn")),
    "federated_cnn_half_0.1": ("federated.json", compositions(0.1, "cifar10_cnn", 0.5)),
    "federated_cnn_half_0.5": ("federated.json", compositions(0.5, "cifar10_cnn", 0.5)),
    "federated_ratios": ("federated.json", federated_ratios),
    "federated_faults": (
        "federated.json",
        lambda result: markdown(federated.FAULT_HEADS, federated.faults(federated.part(result))),
    ),
    "record_mlp_small": ("record.json", record("mlp_small")),
    "record_mlp_small_why": ("record.json", record("mlp_small", why=True)),
    "record_mlp_small_claims": ("record.json", record_claims("mlp_small")),
    "record_resnet20_small": ("record.json", record("resnet20_small")),
    "record_resnet20_small_why": ("record.json", record("resnet20_small", why=True)),
    "record_prototype": ("record_prototype.json", record_prototype),
    "federated_readings": ("federated.json", federated_readings),
    "federated_verdicts": ("federated.json", sweep_verdicts),
    "baselines_mlp": ("federated_baselines.json", baselines("fashion_mlp")),
    "duels_mlp": (("federated_baselines.json", "federated.json"), duels("fashion_mlp", "")),
    "federated_bytes": (
        "federated_bytes.json",
        lambda result: markdown(federated_bytes.LINE_HEADS, federated_bytes.lines(result)),
    ),
    "federated_heavy": (
        "federated_heavy.json",
        lambda result: markdown(federated_heavy.LINE_HEADS, federated_heavy.lines(result)),
    ),
    "federated_privacy": (
        "federated_privacy.json",
        lambda result: markdown(federated_privacy.LINE_HEADS, federated_privacy.lines(result)),
    ),
}
"""By the name in the page: the result or results, and what makes the table of them."""


def rendered(text: str) -> str:
    """A page with every table made anew."""
    for name, (files, make) in TABLES.items():
        mark = f"{MARK}{name} -->"
        if mark in text:
            start = text.index(mark)
            end = text.index("<!-- end -->", start)
            results = [
                json.loads(committed(file).read_text()) for file in ((files,) if isinstance(files, str) else files)
            ]
            table = make(*results)
            text = f"{text[:start]}{mark}\n\n{table}\n\n{text[end:]}"
    return text


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(rendered((ROOT / page).read_text()))

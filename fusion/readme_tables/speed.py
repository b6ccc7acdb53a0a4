"""Tables of benchmarks: `benchmarks/results`."""

import statistics
from typing import Any

from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown

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


TABLES: Tables = {
    "merge_methods": ("merge_methods.json", merge_speed),
    "gpu": (("gpu_mlp.json", "gpu_convolutions.json"), gpu),
}
"""By the name in the page: the results, and what makes the table of them."""

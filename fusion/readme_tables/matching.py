"""Tables of matching: what it costs, and Transformers whose residual stream is turned."""

from typing import Any

import numpy as np

from fusion import orthogonal
from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown
from tna_jax.programs.reports.statistics import format_mean_std

SECONDS = {
    "ours": "ours, SciPy",
    "ours_lapx": "ours, lapx",
    "published": "published, JAX",
    "published_numpy": "published, NumPy",
    "our_products_and_assignments_alone": "our products and SciPy on our assignments, nothing else",
}
PROCESSOR = ("ours", "ours_lapx", "published", "our_products_and_assignments_alone")
LIBRARIES = {"ours": "SciPy", "ours_lapx": "lapx"}


def cost(result: dict[str, Any]) -> str:
    """Seconds and processor time of weight matching, ours and the published code, and their ratios."""
    cases = result["cases"]

    def line(head: str, *cells: str) -> list[str]:
        return [head, *cells]

    def quartiles(values: list[float], digits: int) -> str:
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    rows = [
        line(words, *(quartiles(case["seconds"][name], 2) for case in cases.values()))
        for name, words in SECONDS.items()
    ]
    rows += [
        line(
            f"processor time: {SECONDS[name]}",
            *(f"{case['median_processor_seconds'][name]:.2f}" for case in cases.values()),
        )
        for name in PROCESSOR
    ]
    by_processor = "times_published_by_processor_time"
    rows += [
        line(f"times as fast as in JAX by processor time: {library}", *(f"{case[by_processor][name]:.1f}" for case in cases.values()))
        for name, library in LIBRARIES.items()
    ]  # fmt: skip
    bound = (f"{case['the_same_by_processor_time']:.1f}" for case in cases.values())
    rows.append(line("the same: products and assignments alone", *bound))
    for name, library in LIBRARIES.items():
        ratios = [(case["times_published"][name], case["times_published_quartiles"][name]) for case in cases.values()]
        cells = (f"{middle:.1f} ({low:.1f} to {high:.1f})" for middle, (low, high) in ratios)
        rows.append(line(f"times as fast as in JAX by seconds: {library}, median (quartiles)", *cells))
    objectives = (f"{case['objective']:.1f} / {case['objective_published']:.1f}" for case in cases.values())
    rows.append(line("objective, ours / published", *objectives))
    return markdown(["seconds", *cases], rows)


def turned(result: dict[str, Any]) -> str:
    """Transformers trained apart: as they are, permuted, turned."""
    rows = []
    for case in result["cases"]:
        for line in case["lines"]:
            score = line["accuracy" if "accuracy" in line else "perplexity"]
            loss, accuracy = np.array(line["loss"], float), np.array(score, float)
            middle = loss.shape[1] // 2
            columns = [
                loss[:, [0, -1]].mean(1), loss[:, middle], line["barrier"], accuracy[:, [0, -1]].mean(1), accuracy[:, middle], line["distance"],
            ]  # fmt: skip
            cells = [format_mean_std((np.mean(column), np.std(column, ddof=1)), 3) for column in columns]
            rows.append([case["title"], orthogonal.METHODS[line["method"]], str(len(loss)), *cells])
    heads = ["networks", "second model", "n", "loss, ends", "loss, midpoint", "barrier of the loss", "accuracy or perplexity, ends",
             "at the midpoint", "distance"]  # fmt: skip
    return markdown(heads, rows)


TABLES: Tables = {
    "matching_cost": ("matching.json", cost),
    "orthogonal": ("orthogonal.json", turned),
}
"""By the name in the page: the results, and what makes the table of them."""

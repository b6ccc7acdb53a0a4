"""Tables of merging methods."""

from typing import Any

from fusion import merging_methods
from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown


def merged(result: dict[str, Any]) -> str:
    """Every merging method, without anchors and with."""
    return markdown(merging_methods.HEADS, merging_methods.means(result))


def merged_tasks(result: dict[str, Any]) -> str:
    """Every merging method by task."""
    titles = [task["title"] for task in result["tasks"]]
    return markdown(["method", "ratio", *titles], merging_methods.by_task(result))


TABLES: Tables = {
    "merging_methods": ("merging_methods.json", merged),
    "merging_tasks": ("merging_methods.json", merged_tasks),
}
"""By the name in the page: the results, and what makes the table of them."""

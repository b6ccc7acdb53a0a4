"""What `tna cold` says of contributors: their losses, and what diverged and stands in no average or mean."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.divergence import format_finite
from tna_jax.programs.reports.wording import ratio_name, ratio_text


def contributors_table(result: dict[str, Any]) -> list[Table]:
    """Returns a table of the contributors' training losses in the last iteration; none of files of before."""
    rows = result.get("contributors", [])
    if not rows:
        return []
    end = max(row["iteration"] for row in rows)
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    titles = {task["name"]: task["title"] for task in result["tasks"]}

    def cell(task: str, ratio: float) -> str:
        return format_finite([r for r in rows if (r["task"], r["ratio"], r["iteration"]) == (task, ratio, end)], "loss")

    lines = [
        [titles[task], *(cell(task, ratio) for ratio in ratios)] for task in dict.fromkeys(row["task"] for row in rows)
    ]
    title = f"training loss of contributors, last epoch of iteration {end}"
    return [Table(title, ["contributor", *(f"ratio {ratio_text(ratio)}" for ratio in ratios)], lines)]


def left_out(result: dict[str, Any], names: dict[tuple[str, bool], str]) -> list[str]:
    """Returns which contributors diverged, and which scores stand in no mean.

    Args:
      result: what cold.json holds.
      names: of scores, by (kind, seen).
    """
    then = (
        "and are averaged all the same"
        if result["config"].get("average_diverged")
        else "and are left out of the average"
    )
    notes = []
    rows = result.get("contributors", [])
    for ratio in dict.fromkeys(row["ratio"] for row in rows):
        by_task: dict[str, list[bool]] = {}
        for row in rows:
            if row["ratio"] == ratio:
                by_task.setdefault(row["task"], []).append(row["diverged"])
        parts = [
            f"{task} ({sum(flags)} of {plural(len(flags), 'time')})" for task, flags in by_task.items() if any(flags)
        ]
        if parts:
            notes.append(f"Contributors that diverged {then}, {ratio_name(ratio)}: {', '.join(parts)}.")
    lost: dict[float, dict[str, str]] = {}
    for line in result["summary"]:
        if line.get("diverged"):
            name = names[line["kind"], line["seen"]]
            lost.setdefault(line["ratio"], {})[name] = f"{line['diverged']} of {plural(line['n'], 'seed')}"
    for ratio, scores in lost.items():
        parts = [f"{name} ({count})" for name, count in scores.items()]
        notes.append(f"Left out of the means, {ratio_name(ratio)}, as models diverged: {', '.join(parts)}.")
    return notes

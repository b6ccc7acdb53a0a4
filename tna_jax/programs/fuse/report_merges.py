"""What `tna fuse` shows of merging methods: their options, and by what they were chosen."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.measures import Measure
from tna_jax.programs.reports.statistics import format_number, number


def table(result: dict[str, Any], measure: Measure, ends: dict[str, dict[str, Any]], split: str) -> Table:
    """Returns the merging methods with the options that were chosen, and by what.

    Args:
      result: with `merges`.
      measure: the headline, by which options are chosen.
      ends: the mean of the members, by split.
      split: that is shown.
    """
    name = measure.name
    mean = format_number(number(ends[split][name]))
    rows = []
    for merge in result["merges"]["methods"]:
        options = ", ".join(f"{key} {_short(value)}" for key, value in merge["shown"].items())
        scores = [format_number(number(merge[of][name])) for of in ("held_out", split)]
        rows.append([merge["method"], options, *scores, mean])
    heads = ["method", "options", f"held-out {measure.label}", f"{split} {measure.label}", "ends' mean"]
    return Table(f"Merging methods, options chosen on {held_out(result)}", heads, rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def held_out(result: dict[str, Any]) -> str:
    held = result["held_out"]
    return f"{held['examples']} training examples {'not seen' if held['unseen_in_training'] else 'seen'} in training"


def remarks(result: dict[str, Any]) -> list[str]:
    if not result.get("merges"):
        return []
    merges = result["merges"]
    tried = sum(len(merge["tried"]) for merge in merges["methods"])
    lines = [f"merging: {plural(tried, 'combination')} of options scored on held-out examples, none on the test set"]
    if merges.get("weights") is not None:
        lines.append(f"weights of the models: {', '.join(f'{weight:g}' for weight in merges['weights'])}")
    if merges["base"] is not None:
        lines.append(f"base of task vectors: {merges['base']}")
    equal = {merge["shared_entries"] for merge in merges["methods"]}
    counts = " or ".join(f"{count:,}" for count in sorted(equal))
    return [
        *lines,
        f"anchors: {counts} entries are equal in all models, and bit for bit in every merge{' before REPAIR' * result['options']['repair']}",
    ]

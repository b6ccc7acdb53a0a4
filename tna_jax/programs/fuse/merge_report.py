"""What fuse.json says of the merges: a row for each beside the soups, and what chose their options."""

from typing import Any

import jax

from tna_jax.programs.fuse import methods
from tna_jax.programs.fuse.merge_plan import AVERAGE, Plan
from tna_jax.programs.fuse.merges import Merge
from tna_jax.programs.fuse.options import FuseOptions

WEIGHTED = "weighted average"


def rows(merged: list[Merge], weighted: bool) -> list[dict[str, Any]]:
    """Returns one row per method and split, as `fusion_methods.rows`; an average of equal weights is there as the uniform soup."""
    return [
        {
            "fusion": WEIGHTED if merge.method == AVERAGE else merge.method,
            "split": split,
            "examples": int(values.count),
            **{name: values.value(name) for name in values.names},
        }
        for merge in merged
        if merge.method != AVERAGE or weighted
        for split, values in merge.metrics.items()
    ]


def to_report(plan: Plan, merged: list[Merge], settings: FuseOptions, held_out: int, unseen: bool) -> dict[str, Any]:
    """Returns what a results file says of the merges: what chose their options, all that was tried, and what they are.

    Args:
      plan: what was tried.
      merged: the best of each method, measured.
      settings: the options.
      held_out: the number of training examples that chose.
      unseen: whether the models were trained without them.
    """
    named = methods.named(settings.method_options)
    return {
        "chosen_on": {"split": "train", "examples": held_out, "unseen_in_training": unseen},
        "base": None if plan.base is None else plan.base.what,
        "scope": plan.scope,
        "weights": plan.weights,
        "examples_looked_at": None if plan.inputs is None else len(jax.tree.leaves(plan.inputs)[0]),
        "methods": [
            {
                "method": merge.method,
                "options": merge.options,
                "shown": methods.shown(merge.options, plan.tried[merge.method], named),
                "held_out": merge.score,
                **{
                    split: {name: values.value(name) for name in values.names}
                    for split, values in merge.metrics.items()
                },
                "shared_entries": merge.equal,
                **merge.facts,
                "tried": merge.candidates,
            }
            for merge in merged
        ],
    }

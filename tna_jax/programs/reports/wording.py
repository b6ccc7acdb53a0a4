"""Words that the descriptions of several programs share."""

from typing import Any

from tna_jax.programs.cli.dataset_names import short

RATIO = "mask ratio (share of anchored weights)"
ALPHA = "α, from one model (0) to the other (1)"


def network_name(result: dict[str, Any]) -> str:
    """Returns the network in words; results from before they were kept say it by their options."""
    config = result.get("config", {})
    known = result.get("network") or (
        "model" in config and f"{config['model']} {config.get('depth')}x{config.get('width')}"
    )
    return str(known or "")


def dataset_name(config: dict[str, Any]) -> str:
    """Returns the data set of a result as titles show it: of the user's own data without folders."""
    return short(str(config.get("dataset", "")))


def ratio_text(ratio: float | None) -> str:
    """Returns a mask ratio for a table: a dash for models that were given as they are."""
    return "–" if ratio is None else f"{ratio:g}"


def ratio_name(ratio: float | None) -> str:
    """Returns the name of a population by its mask ratio."""
    return "models as given" if ratio is None else f"ratio {ratio:g}" if ratio else "no anchors"


def seen_text(seen: bool) -> str:
    """Returns whether a task contributed."""
    return "seen" if seen else "unseen"


def pairs_that_diverged(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a note on the pairs whose loss is not finite somewhere on the path."""
    bad = sorted({"-".join(map(str, row["pair"])) for row in rows if None in row["loss_path"]})
    return [f"Pairs with a model that diverged, left out of the means: {', '.join(bad)}."] if bad else []


def memory_use(facts: dict[str, Any]) -> list[str]:
    """Returns a sentence on what was predicted of the memory before a training, and what it came to; none if it was not measured."""
    if not facts.get("resident_bytes_before"):
        return []
    before, predicted, peak = (facts[key] / 1e9 for key in ("resident_bytes_before", "predicted_bytes", "peak_bytes"))
    return [
        f"memory: {before:.2f} GB before the training, {before + predicted:.2f} GB predicted, {peak:.2f} GB at most in the "
        "whole program"
    ]


def frozen_text(frozen: dict[str, Any] | None) -> list[str]:
    """Returns what is frozen as a sentence in a list; an empty one where nothing is."""
    if frozen is None:
        return []
    return [
        f"frozen by {frozen['freeze']!r}: {frozen['parameters']:,} of {frozen['of']:,} parameters in {frozen['leaves']} leaves"
    ]

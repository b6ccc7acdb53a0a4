"""What `tna merge` shows: the weights, or the trail of a greedy soup, and how much was copied."""

from typing import Any

from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.statistics import finite_mean_std, format_number


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the merge, the models in the order in which a greedy soup tried them."""
    trail = {step["model"]: step for step in result.get("trail", [])}
    rows = [[str(result["models"][i]), format_number(result["weights"][i]), *_step(trail.get(i))]
            for i in list(trail) or range(len(result["models"]))]  # fmt: skip
    share = result["entries_equal_in_all"] / max(result["entries"], 1)
    score = [Number("score of the greedy soup", format_number(result["score"]))] if "score" in result else []
    numbers = [
        *score,
        Number("models", str(len(rows))),
        Number("entries equal in all", f"{share:.2%}", "copied bit for bit"),
    ]
    remarks = []
    if result["entries"]:
        remarks.append(
            f"{share:.2%} of {result['entries']:,} entries are equal in all models and were copied bit for bit"
        )
    if verified := result.get("anchors_verified"):
        remarks.append(f"the {verified['anchored']:,} anchors that the files' recipe names are the same in all models")
    alone = finite_mean_std(step["own"] for step in trail.values()).mean
    lead = f"The models alone score {format_number(alone)} on average." if trail else ""
    table = Table(
        "what went into it", ["model", "weight", *(["score alone", "soup with it", "kept"] if trail else [])], rows
    )
    heading = f"{result['tensors']} tensors, sums in {result['accumulate']}"
    return Description("Merge", heading, lead, numbers, [table], remarks=remarks)


def _step(step: dict[str, Any] | None) -> list[str]:
    """Scores with six digits: of many test examples the differences are small."""
    if step is None:
        return []
    scores = ["–" if step[key] is None else f"{step[key]:.6g}" for key in ("own", "score")]
    return [*scores, "yes" if step["kept"] else "no"]

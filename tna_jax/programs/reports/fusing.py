"""A report's parts on averages of models: `fuse.json`, and the report that `tna merge` leaves."""

from typing import Any

from tna_jax.programs.cli.progress import plural
from tna_jax.programs.reports.blocks import Figure, Number, Part, Table, format_text, mean_std, number, spread
from tna_jax.programs.reports.charts import dots, matrix


def fuse(result: dict[str, Any], split: str) -> Part:
    """What `tna fuse` found."""
    rows = [row for row in result["rows"] if row["split"] == split]
    count, options = len(result["models"]), result["options"]

    def std(row: dict[str, Any], measure: str) -> float | None:
        return number(row[f"{measure}_std"]) if f"{measure}_std" in row else None

    def cell(row: dict[str, Any], measure: str) -> str:
        value, deviation = number(row[measure]), std(row, measure)
        return format_text(value) + (f" ± {format_text(deviation)}" if deviation is not None else "")

    table = Table(f"{split} set", ["fusion", "models", "accuracy", "loss"],
                  [[row["fusion"], str(len(row.get("models", result["models"]))), cell(row, "accuracy"), cell(row, "loss")]
                   for row in rows])  # fmt: skip
    pairs = [row for row in result["pairs"] if row["split"] == split]
    barriers = {(row["pair"][0], row["pair"][1]): number(row["accuracy_barrier"]) for row in pairs}
    told = ", ".join(f"{row['fusion']} {cell(row, 'accuracy')}" for row in rows)
    blocks: list[Table | Figure] = [
        table,
        dots(f"{split.capitalize()} accuracy of each fusion", f"Dot chart of the {split} accuracy: {told}.",
             [(row["fusion"], number(row["accuracy"]), std(row, "accuracy")) for row in rows], f"{split} accuracy"),
        matrix("Accuracy barrier of each pair", f"Matrix of the {split} accuracy barriers between {count} models.",
               [str(i) for i in range(count)], barriers, "accuracy barrier"),
    ]  # fmt: skip
    numbers = [
        Number(
            f"accuracy, {row['fusion']}",
            cell(row, "accuracy"),
            minor=row["fusion"] in ("mean of members", "logit ensemble"),
        )
        for row in rows
    ]
    numbers.append(
        Number(
            "accuracy barrier, models to fuse",
            spread(list(barriers.values())),
            plural(len(barriers), "pair"),
            True,
        )
    )
    held = result["held_out"]
    seen = "not seen in training" if held["unseen_in_training"] else "seen in training"
    after = [f"{options['matching']} matching"] if options["matching"] != "none" else []
    after += ["REPAIR"] if options["repair"] else []
    lead = (
        f"{count} models made one{' after ' + ' and '.join(after) if after else ''}. The best single model and the greedy "
        f"soup were chosen on {held['examples']} training examples {seen}."
    )
    return Part("Fusions", lead, numbers, blocks)


def merge(result: dict[str, Any], split: str) -> Part:
    """What `tna merge` did."""
    trail = {step["model"]: step for step in result.get("trail", [])}
    order = list(trail) or list(range(len(result["models"])))
    rows = [
        [str(result["models"][i]), format_text(result["weights"][i]),
         *([format_text(trail[i]["own"]), format_text(trail[i]["score"]), "yes" if trail[i]["kept"] else "no"] if trail else [])]
        for i in order
    ]  # fmt: skip
    heads = ["model", "weight", *(["score alone", "soup with it", "kept"] if trail else [])]
    share = result["entries_equal_in_all"] / max(result["entries"], 1)
    numbers = [Number("models", str(len(rows))), Number("entries equal in all", f"{share:.2%}", "copied bit for bit")]
    if "score" in result:
        numbers.insert(0, Number("score of the greedy soup", format_text(result["score"])))
    mean = mean_std([step["own"] for step in trail.values()])[0] if trail else None
    lead = f"{result['tensors']} tensors, summed in {result['accumulate']}" + (
        f"; the models alone score {format_text(mean)} on average." if mean is not None else "."
    )
    return Part("Merge", lead, numbers, [Table("what went into it", heads, rows)])

"""What `tna merge` prints: the weights, or the trail of a greedy soup, and how much was copied."""

from typing import Any

from rich.table import Table

from train.progress import wide_console


def table(result: dict[str, Any]) -> None:
    """Prints every model, in the order in which a greedy soup tried them."""
    lines = Table(title=f"{result['tensors']} tensors, sums in {result['accumulate']}", title_justify="left")
    trail = {step["model"]: step for step in result.get("trail", [])}
    for head in ("model", "weight", *(("score alone", "soup with it", "kept") if trail else ())):
        lines.add_column(head, justify="left" if head == "model" else "right")
    for i in sorted(range(len(result["models"])), key=lambda i: list(trail).index(i) if trail else i):
        cells = [result["models"][i], f"{result['weights'][i]:.4f}"]
        if trail:
            numbers = [trail[i][key] for key in ("own", "score")]
            cells += ["-" if n is None else f"{n:.6g}" for n in numbers] + ["yes" if trail[i]["kept"] else "no"]
        lines.add_row(*cells)
    wide_console().print(lines)
    if result["entries"]:
        share = result["entries_equal_in_all"] / result["entries"]
        print(f"{share:.2%} of {result['entries']:,} entries are equal in all models and were copied bit for bit")
    if result["anchors_verified"]:
        count = result["anchors_verified"]["anchored"]
        print(f"the {count:,} anchors that the files' recipe names are the same in all models")

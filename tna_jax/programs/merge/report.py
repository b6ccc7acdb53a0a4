"""What `tna merge` shows: the weights, or the trail of a greedy soup, how near the models are, and how much was copied."""

from pathlib import Path
from typing import Any

from tna_jax.programs.cli.progress import plural, size
from tna_jax.programs.merge.options import MergeOptions
from tna_jax.programs.merge.plan import Output, Plan
from tna_jax.programs.reports.blocks import Description, Number, Table
from tna_jax.programs.reports.present import present
from tna_jax.programs.reports.statistics import finite_mean_std, format_number


def describe(result: dict[str, Any], split: str = "test") -> Description:
    """Describes the merge, the models in the order in which a greedy soup tried them."""
    trail = {step["model"]: step for step in result.get("trail", [])}
    near = result.get("similarity")
    names = _short(result["models"])
    rows = [[names[i], format_number(result["weights"][i]), *_nearness(near, i), *_step(trail.get(i))]
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
        remarks.append(
            f"the {verified['anchored']:,} anchors that the files' recipe names (mask ratio {verified['ratio']:g}) are the same in all models"
        )
    alone = finite_mean_std(step["own"] for step in trail.values()).mean
    lead = f"The models alone score {format_number(alone)} on average." if trail else ""
    heads = [
        "model",
        "weight",
        *(["to mean", "cosine"] if near else []),
        *(["score alone", "soup with it", "kept"] if trail else []),
    ]
    table = Table("what went into it", heads, rows)
    if near:
        remarks.append(
            "to mean: distance to the merged models' mean over its length; cosine: the smallest with another model "
            "(matrices and kernels only)"
        )
    options = ", ".join(f"{key} {value}" for key, value in result.get("method_options", {}).items())
    method = f"{result.get('method', 'average')}{f' ({options})' if options else ''}"
    heading = f"{method} of {result['tensors']} tensors, sums in {result['accumulate']}"
    if matched := result.get("matched"):
        numbers.append(
            Number("hidden units moved", f"{sum(m['moved'] for m in matched):,}", "to match the first model")
        )
        still = sum(not group["moved"] for m in matched for group in m["groups"].values())
        remarks.append(
            f"matched to {names[0]} before the merge; groups of hidden units in which nothing moved: {still}"
        )
        if turned := [m["turned"] for m in matched if m.get("turned")]:
            rounds = ", ".join(str(each["rounds"]) for each in turned)
            remarks.append(
                f"a residual stream of {turned[0]['units']:,} units was turned ({rounds} rotations solved); all tensors are those of another form "
                f"of the models, {names[0]} too"
            )
    return Description(
        "Merge",
        heading,
        lead,
        numbers,
        [table, *_matched(result)],
        remarks=remarks,
        notes=list(result.get("warnings", [])),
    )


def _matched(result: dict[str, Any]) -> list[Table]:
    """Returns the table of the groups of hidden units in which matching moved units; none where nothing moved."""
    matched = result.get("matched", [])
    names = _short([m["model"] for m in matched]) if matched else []
    groups = [
        name for name in (matched[0]["groups"] if matched else {}) if any(m["groups"][name]["moved"] for m in matched)
    ]
    rows = [[name, str(matched[0]["groups"][name]["units"]), *(str(m["groups"][name]["moved"]) for m in matched)]
            for name in groups]  # fmt: skip
    heads = ["group", "units", *(f"moved in {name}" for name in names)]
    return [Table("hidden units moved", heads, rows)] if rows else []


def _nearness(near: dict[str, Any] | None, i: int) -> list[str]:
    if near is None:
        return []
    others = [value for j, value in enumerate(near["cosines"][i]) if j != i and value is not None]
    distance, length = near["distance_to_mean"][i], near["length_of_mean"]
    known = distance is not None and length is not None  # of models that are finite
    relative = f"{distance / length if length else 0.0:.4f}" if known else "–"
    return [relative, f"{min(others):.4f}" if others else "–"]


def _short(paths: list[str]) -> list[str]:
    """Returns the names of models without what all of their paths begin with."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return paths


def print_plan(settings: MergeOptions, plan: Plan, warnings: list[str], memory: int) -> None:
    """Prints what a merge would write, what it would take, and writes nothing."""
    rows = [
        [output.name, "x".join(map(str, output.shape)) or "scalar", output.kind, size(output.bytes), _what(output, plan)]
        for output in plan.outputs
    ]  # fmt: skip
    heads = ["tensor", "shape", "dtype", "size", ""]
    read = sum(source.size * source.dtype.itemsize for output in plan.outputs for source in output.sources)
    seconds = read / RATE[settings.method == "average"]
    remarks = [
        f"{len(plan.outputs)} tensors, {size(plan.bytes)} in {plural(len(plan.files), 'file')}; {size(read)} are read",
        *(["--match: the models are matched when they are merged, not now"] if settings.match else []),
        f"about {size(memory)} of memory beside the program's own, and {seconds:.0f} s or more, by the disk",
        "a dry run: nothing was written",
    ]
    present(
        Description(
            "Merge",
            f"would write {settings.out}",
            "",
            [],
            [Table("tensors", heads, rows)],
            remarks=remarks,
            notes=warnings,
        )
    )


RATE = {True: 600e6, False: 60e6}
"""Bytes read a second, roughly: of averages, and of methods that see whole tensors."""


def _what(output: Output, plan: Plan) -> str:
    if output.copied:
        return "copied"
    if not output.sources[0].floating:
        return "the first's"
    return "" if len(set(output.weights)) == 1 else " ".join(f"{weight:g}" for weight in output.weights)


def _step(step: dict[str, Any] | None) -> list[str]:
    """Scores with six digits: of many test examples the differences are small."""
    if step is None:
        return []
    scores = ["–" if step[key] is None else f"{step[key]:.6g}" for key in ("own", "score")]
    return [*scores, "yes" if step["kept"] else "no"]

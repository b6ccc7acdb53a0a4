"""The README.md of a merged folder: a model card as Hugging Face's hub reads it, made from the report."""

import json
from pathlib import Path
from typing import Any


def write(folder: Path, result: dict[str, Any]) -> None:
    """Writes the card of a merge into its folder; a card that the folder already holds is the user's and stays."""
    if not (folder / "README.md").exists():
        (folder / "README.md").write_text(text(folder, result), encoding="utf-8")


def text(folder: Path, result: dict[str, Any]) -> str:
    """Returns the card: what was merged, how, and what to know of it."""
    names = [Path(model).name for model in result["models"]]
    base = [Path(result["base"]).name] if result["base"] else []
    head = ["---", "library_name: transformers", "tags:", "- merge", "- tna_jax"]
    head += ["---", ""]
    options = ", ".join(f"{key} {value}" for key, value in result["method_options"].items())
    rows = [f"| {name} | {weight:.4g} |" for name, weight in zip(names, result["weights"], strict=True)]
    share = result["entries_equal_in_all"] / max(result["entries"], 1)
    lines = [
        *head, f"# A merge of {' and '.join(names)}", "",
        f"Method: {result['method']}{f' ({options})' if options else ''}{f', base {base[0]}' if base else ''}. "
        f"{share:.2%} of {result['entries']:,} entries were equal in all models and are copied bit for bit.{_matched(result)}", "",
        "| model | weight |", "| --- | --- |", *rows, "",
    ]  # fmt: skip
    if result["warnings"]:
        lines += ["What was said while merging:", "", *(f"- {' '.join(w.split())}" for w in result["warnings"]), ""]
    lines += ["SHA-256 of the files that were merged:", "", *_hashes(result["inputs"]), ""]
    return "\n".join(lines)


def _matched(result: dict[str, Any]) -> str:
    """Returns what was done to the models before the merge."""
    if not (matched := result.get("matched")):
        return ""
    turned = " and turned their residual streams" if any(model.get("turned") for model in matched) else ""
    return (
        f" Matching brought their hidden units into the order of {Path(result['models'][0]).name} before that{turned}."
    )


def _hashes(inputs: dict[str, str]) -> list[str]:
    return [f"- {json.dumps('/'.join(Path(file).parts[-2:]))}: {digest}" for file, digest in inputs.items()]

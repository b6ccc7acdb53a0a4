"""Reads what of mergekit's YAML these methods can do: merge_method, models with their weights, base_model, parameters, dtype.

What cannot be done is refused by its name and line: slices, tokenizers that are built anew, gradients of parameters. Where a parameter
means another thing here, the value is translated (see `_options`); facts of the format: https://github.com/arcee-ai/mergekit.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import yaml

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.choices import MergingMethod
from tna_jax.programs.merge.options import FACTORS, MergeOptions

METHODS: dict[str, MergingMethod] = {
    "linear": "average", "task_arithmetic": "task_arithmetic", "ties": "ties", "dare_linear": "dare_linear", "dare_ties": "dare_ties",
    "della": "della", "della_linear": "della_linear", "breadcrumbs": "breadcrumbs", "model_stock": "model_stock", "slerp": "slerp", "sce": "sce", "karcher": "karcher",
}  # fmt: skip
"""Its names of methods, and ours."""
TOP = ("merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source")
GLOBAL = ("normalize", "int8_mask", "lambda", "density", "weight", "t", "rescale", "epsilon", "gamma", "select_topk")
OF_MODEL = ("weight", "density")
DTYPES = ("float32", "float16", "bfloat16", "float64")


class Recipe:
    """A recipe file with the line of each of its entries."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.wrong: list[str] = []
        try:
            text = file.read_text(encoding="utf-8")
            self.node = yaml.compose(text, Loader=yaml.SafeLoader)
            content = yaml.safe_load(text)
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise UsageError(f"{file} must be a mapping with merge_method and models")
        self.content: dict[str, Any] = content

    def line(self, *keys: str | int) -> int:
        """Returns the line, from 1, of an entry."""
        node: Any = self.node
        for key in keys:
            if isinstance(key, int):
                node = node.value[key]
            else:
                pair = next(pair for pair in node.value if pair[0].value == key)
                node = pair[1] if key != keys[-1] else pair[0]
        return int(node.start_mark.line) + 1

    def refuse(self, what: str, *keys: str | int) -> None:
        """Notes what cannot be done."""
        self.wrong.append(f"line {self.line(*keys)}: {what}")

    def unknown(self, held: Any, known: tuple[str, ...], *keys: str | int) -> None:
        """Notes the entries of a mapping that are not known."""
        for key in held if isinstance(held, dict) else ():
            if key not in known:
                self.refuse(f"{key} is not among {', '.join(known)}", *keys, key)


def read(options: MergeOptions) -> MergeOptions:
    """Returns the options with what a recipe file says.

    Raises:
      UsageError: what the file asks for and cannot be done is named, each with its line.
    """
    recipe = Recipe(Path(str(options.recipe)))
    content = recipe.content
    recipe.unknown(content, TOP)
    method = METHODS.get(str(content.get("merge_method")))
    if method is None:
        known = ", ".join(METHODS)
        said = (
            f"{content['merge_method']!r} is not among {known}" if "merge_method" in content else f"name one of {known}"
        )
        recipe.wrong.append(f"merge_method: {said}")
    parameters = content.get("parameters") or {}
    recipe.unknown(parameters, GLOBAL, "parameters")
    models, weights, densities = _models(recipe, content.get("base_model"))
    values = _options(recipe, method or "", parameters, densities)
    shares = (
        None if recipe.wrong else _weights(recipe, method or "", weights, parameters, content.get("base_model"), models)
    )
    for key in ("dtype", "out_dtype"):
        if content.get(key) is not None and content[key] not in DTYPES:
            recipe.refuse(f"{key} must be one of {', '.join(DTYPES)}, got {content[key]!r}", key)
    if content.get("tokenizer_source") not in (None, "base"):
        recipe.refuse("a tokenizer is never built anew here; the first model's is kept", "tokenizer_source")
    if recipe.wrong or method is None:
        raise UsageError("\n  ".join([f"{recipe.file} cannot be followed:", *recipe.wrong]))
    return dataclasses.replace(
        options, recipe=None, models=models, method=method, base=content.get("base_model"),
        weights=shares,
        method_options=tuple(f"{key}={value}" for key, value in values.items()) or None,
        dtype=content.get("out_dtype") or content.get("dtype"),
    )  # fmt: skip


def _models(recipe: Recipe, base: str | None) -> tuple[tuple[str, ...], list[float | None], list[float]]:
    """Returns the models beside the base, their weights, and the densities that are written."""
    listed = recipe.content.get("models")
    if not isinstance(listed, list):
        recipe.wrong.append("models: must be a list of `- model: PATH`")
        return (), [], []
    names, weights, densities = [], [], []
    for i, entry in enumerate(listed):
        if not isinstance(entry, dict) or not isinstance(entry.get("model"), str):
            recipe.refuse("must be `- model: PATH`, a text", "models", i)
            continue
        recipe.unknown(entry, ("model", "parameters"), "models", i)
        held = entry.get("parameters") or {}
        recipe.unknown(held, OF_MODEL, "models", i, "parameters")
        for key in OF_MODEL:
            if key in held and not _is_number(held[key]):
                recipe.refuse(
                    f"{key} must be one number here (no gradients over layers, no filters)",
                    "models",
                    i,
                    "parameters",
                    key,
                )
        if entry["model"] == base and recipe.content.get("merge_method") not in ("slerp", "linear"):
            continue
        names.append(entry["model"])
        weights.append(held["weight"] if _is_number(held.get("weight")) else None)
        densities += [held["density"]] if _is_number(held.get("density")) else []
    return tuple(names), weights, densities


def _is_number(value: Any) -> bool:
    """Whether YAML holds a number there: `true` is none, though Python counts it as 1."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _options(recipe: Recipe, method: str, parameters: dict[str, Any], densities: list[float]) -> dict[str, Any]:
    """Returns the options of the method that stand for the recipe's parameters."""
    values: dict[str, Any] = {}
    if len(set(densities)) > 1:
        recipe.wrong.append(
            f"models: the densities {', '.join(map(str, densities))} differ; one for all models is known here"
        )
    density = densities[0] if densities else parameters.get("density")
    if density is not None:
        values["density"] = density
    if method not in ("average", "slerp", "karcher", "model_stock", ""):
        values["strength"] = parameters.get("lambda", 1.0)
    for ours, theirs in (("epsilon", "epsilon"), ("gamma", "gamma"), ("density", "select_topk")):
        if theirs in parameters:
            values[ours] = parameters[theirs]
    for key, value in parameters.items():
        if key in ("normalize", "rescale", "int8_mask") and not isinstance(value, bool):
            recipe.refuse(f"{key} must be true or false", "parameters", key)
        elif key not in ("normalize", "rescale", "int8_mask") and not _is_number(value):
            recipe.refuse(f"{key} must be one number here (no gradients over layers, no filters)", "parameters", key)
    return values


def _weights(
    recipe: Recipe,
    method: str,
    weights: list[float | None],
    parameters: dict[str, Any],
    base: str | None,
    models: tuple[str, ...],
) -> tuple[float, ...] | None:
    """Returns the weights as the method takes them: shares, or factors that `normalize` divides by their sum."""
    if method == "slerp" and "t" in parameters:
        t = float(parameters["t"])
        if not 0 <= t <= 1:
            recipe.refuse(
                f"t must lie in [0, 1], got {t:g}: slerp stays between the models; linear and task_arithmetic go beyond them",
                "parameters", "t",
            )  # fmt: skip
        return (1 - t, t) if base is None or models[:1] == (base,) else (t, 1 - t)
    if parameters.get("normalize") is False and method not in FACTORS:
        recipe.refuse(
            f"{recipe.content['merge_method']} divides its weights by their sum here", "parameters", "normalize"
        )
    default = parameters.get("weight")
    filled = [default if weight is None else weight for weight in weights]
    if all(weight is None for weight in filled):
        return None
    numbers = [1.0 if weight is None else float(weight) for weight in filled]
    total = math.fsum(numbers)
    if parameters.get("normalize") is True and method in FACTORS and total:
        numbers = [weight / total for weight in numbers]
    return tuple(numbers)

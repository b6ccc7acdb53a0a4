"""Reads what of mergekit's YAML these methods can do: merge_method, models with their weights, base_model, parameters, dtype.

What cannot be done is refused by its name and line: slices, tokenizers that are built anew, gradients of parameters. Where a parameter
means another thing here, the value is translated, and what the file leaves out has mergekit's default, not ours (see `_options`); facts of
the format: https://github.com/arcee-ai/mergekit (merge_methods/registry.py, generalized_task_arithmetic.py, sce.py, plan.py).
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import yaml

from tna_jax.io.errors import UsageError
from tna_jax.merging.methods import METHODS as OURS
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
NO_BASE = ("slerp", "linear", "karcher")
"""Methods to which a base among the models is a model like the others."""
RESCALED = ("dare_linear", "dare_ties", "della", "della_linear")
"""Methods that divide what stays by its probability: mergekit's `rescale: true`, their default there."""
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
            wrong = _wrong_keys(self.node)
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
        if wrong:
            raise UsageError("\n  ".join([f"{file} cannot be followed:", *wrong]))
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

    def mapping(self, held: Any, *keys: str | int) -> dict[str, Any]:
        """Returns a mapping of the file, empty where there is none, and notes what is something else."""
        if held is not None and not isinstance(held, dict):
            self.refuse(f"{keys[-1]} must be a mapping, as in `weight: 0.5`", *keys)
        return held if isinstance(held, dict) else {}

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
    parameters = recipe.mapping(content.get("parameters"), "parameters")
    recipe.unknown(parameters, GLOBAL, "parameters")
    if not isinstance(content.get("base_model"), str | None):
        recipe.refuse("base_model must be a path, a text", "base_model")
    models, weights, densities = _models(recipe, content.get("base_model"))
    if method == "slerp":
        models = _ends(recipe, models, parameters)
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


def _wrong_keys(node: Any, seen: frozenset[int] = frozenset()) -> list[str]:
    """Returns the names of mappings that are no text, or stand there twice: of those YAML's readers silently take the last."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return []
    seen |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [line for inner in node.value for line in _wrong_keys(inner, seen)]
    found: list[str] = []
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not key.tag.endswith(":str"):
            found.append(f"line {line}: {key.value} must be the name of an entry, a text")
        elif key.value in lines:
            found.append(f"line {line}: {key.value} stands there again, after line {lines[key.value]}; say it once")
        else:
            lines[key.value] = line
        found += _wrong_keys(value, seen)
    return found


def _ends(recipe: Recipe, models: tuple[str, ...], parameters: dict[str, Any]) -> tuple[str, ...]:
    """Returns the two models of an arc; one that is named beside the base alone goes with it, as in mergekit."""
    base = recipe.content.get("base_model")
    if "t" not in parameters:
        recipe.wrong.append("parameters: slerp needs t, from 0 (base_model) to 1 (the other model)")
    if base is not None and base not in models and len(models) == 1:
        return (base, *models)
    if base is not None and base not in models:
        recipe.refuse("slerp begins at base_model, which must be one of its two models", "base_model")
    return models


def _models(recipe: Recipe, base: str | None) -> tuple[tuple[str, ...], list[float | None], list[float | None]]:
    """Returns the models beside the base, their weights, and their densities; None where there is none."""
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
        held = recipe.mapping(entry.get("parameters"), "models", i, "parameters")
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
        if entry["model"] == base and recipe.content.get("merge_method") not in NO_BASE:
            continue
        names.append(entry["model"])
        weights.append(held["weight"] if _is_number(held.get("weight")) else None)
        densities.append(held["density"] if _is_number(held.get("density")) else None)
    return tuple(names), weights, densities


def _is_number(value: Any) -> bool:
    """Whether YAML holds a number there: `true` is none, though Python counts it as 1."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _options(recipe: Recipe, method: str, parameters: dict[str, Any], densities: list[float | None]) -> dict[str, Any]:
    """Returns the options of the method that stand for the recipe's parameters.

    Where the file says nothing mergekit keeps all (and then drops neither outliers nor by rank), and SCE selects all. Its epsilon, 0.15
    by default, is half of ours.
    """
    wrong = len(recipe.wrong)
    for key, value in parameters.items():
        if key in ("normalize", "rescale", "int8_mask") and not isinstance(value, bool):
            recipe.refuse(f"{key} must be true or false", "parameters", key)
        elif key not in ("normalize", "rescale", "int8_mask") and not _is_number(value):
            recipe.refuse(f"{key} must be one number here (no gradients over layers, no filters)", "parameters", key)
    if len(recipe.wrong) > wrong or not method:
        return {}
    theirs, known = recipe.content["merge_method"], {option.name for option in OURS[method].options}
    if "density" in known and method != "sce" and parameters.get("rescale", method in RESCALED) != (method in RESCALED):
        always = "always" if method in RESCALED else "never"
        recipe.refuse(f"{theirs} {always} rescales here what it keeps", "parameters", "rescale")
    ours = {
        "lambda": "strength",
        "gamma": "gamma",
        "epsilon": "epsilon",
        **({"select_topk": "density"} if method == "sce" else {"density": "density"}),
    }
    for key in ("lambda", "gamma", "epsilon", "select_topk", "density", "t"):
        if key in parameters and (method != "slerp" if key == "t" else ours.get(key) not in known):
            recipe.refuse(f"{key} is not known to {theirs}", "parameters", key)
    if any(density is not None for density in densities) and ours.get("density") not in known:
        recipe.wrong.append(f"models: density is not known to {theirs}")
    kept = sorted({parameters.get("density", 1.0) if density is None else density for density in densities})
    if len(kept) > 1 and ours.get("density") in known:
        recipe.wrong.append(
            f"models: the densities {', '.join(map(str, kept))} differ (it is 1 where none is said); one for all models is known here"
        )
    density = parameters.get("select_topk", 1.0) if method == "sce" else kept[0] if kept else 1.0
    values = {
        "strength": parameters.get("lambda", 1.0),
        "density": density,
        "gamma": min(parameters.get("gamma", 0.01), max(0.0, 1 - density)),
        "epsilon": 0.0 if density >= 1 else 2 * parameters.get("epsilon", 0.15),
    }
    return {name: value for name, value in values.items() if name in known}


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
    if parameters.get("normalize") is not True and method == "dare_ties":
        recipe.wrong.append(
            "parameters: dare_ties divides its weights by their sum here, which mergekit does only with normalize: true; write that"
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

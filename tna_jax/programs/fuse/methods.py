"""The merging methods of `tna fuse` by name: those of one tensor (`tna merge` has them too) and those that look at data; grids of their options.

Needs no JAX.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from tna_jax.io.errors import UsageError
from tna_jax.merging.method import Array, Context, Method, Option
from tna_jax.merging.methods import METHODS
from tna_jax.programs.cli import pairs


def _whole_models(base: Array | None, vectors: Array, weights: Array, context: Context, /, **options: Any) -> Array:
    raise NotImplementedError("this method merges whole models, see tna_jax.programs.fuse.data_aware")


DATA_AWARE: dict[str, Method] = {
    "fisher": Method(
        "fisher", "each weight by how much predictions depend on it", "2111.09832", _whole_models, needs_base=False, normalized=True,
        options=(Option("floor", 0.0, "added to the Fisher information", low=0),),
    ),
    "regmean": Method(
        "regmean", "dense layers whose outputs are closest to every model's", "2212.09849", _whole_models, needs_base=False,
        normalized=True, options=(Option("scale", 0.9, "of Gram matrices off the diagonal", low=0, high=1),),
    ),
    "adamerging": Method(
        "adamerging", "coefficients of task vectors that make predictions certain", "2310.02575", _whole_models, needs_base=True,
        normalized=False, options=(
            Option("coefficients", "layer", "one for each leaf and model, or for each model", choices=("model", "layer")),
            Option("start", 0.3, "of all coefficients"),
            Option("steps", 500, "of Adam", low=1, high=1_000_000),
            Option("learning_rate", 1e-3, "of Adam", low=0, above=True),
            Option("batch_size", 16, "inputs of each step", low=1, high=1_000_000),
            Option("seed", 0, "of the batches", low=0, high=2**31 - 1),
        ),
    ),
}  # fmt: skip
"""Methods that look at training inputs, see `tna_jax.programs.fuse.data_aware`."""
ALL: dict[str, Method] = {**METHODS, **DATA_AWARE}

DENSITIES = (0.2, 0.5, 0.8)
SCALES = (0.5, 0.9, 1.0)
SHARES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Strengths of methods that average task vectors: 1 is the average of what stays."""


def default_grid(method: Method, option: Option, models: float) -> tuple[Any, ...]:
    """Returns the values of an option that are tried where the user names none: strengths, densities and scales; else the default.

    Methods that add task vectors are tried around the average, a strength of 1 / M, and at their sum; with weights M is their sum.
    """
    if option.name == "strength" and method.normalized:
        return SHARES
    if option.name == "strength":
        return tuple(sorted({*(part / models for part in (0.5, 1.0, 1.5, 2.0)), 1.0}))
    if option.name == "coefficients":
        return option.choices
    grid = {"density": DENSITIES, "scale": SCALES}.get(option.name)
    return (option.default,) if grid is None else tuple(sorted({*grid, float(option.default)}))


def grids(
    names: Sequence[str], words: tuple[str, ...] | None, models: int, weights: Sequence[float] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Returns the options that are tried for each method: all combinations of the values named, or of the default grids.

    Args:
      names: of methods.
      words: `KEY=VALUE` or `KEY=VALUE,VALUE`; each is an option of one or more of the methods.
      models: how many are merged.
      weights: of each; None: 1.

    Raises:
      UsageError: an option that no chosen method has, values that are not allowed, or a number of models that a method cannot merge;
        all are named.
    """
    values = {key: _listed(value) for key, value in pairs.values(words).items()}
    methods = [ALL[name] for name in names]
    unknown = [key for key in values if not any(option.name == key for m in methods for option in m.options)]
    wrong = [
        f"--method-options {key}: {' and '.join(names)} {'have' if names[1:] else 'has'} no such option; {_known(methods)}"
        for key in unknown
    ]
    tried: dict[str, list[dict[str, Any]]] = {}
    for method in methods:
        axes = {
            option.name: values.get(option.name)
            or default_grid(method, option, models if weights is None else sum(weights))
            for option in method.options
        }
        asked = any(key in axes for key in values)
        tried[method.name] = []
        problems = []
        for combination in itertools.product(*axes.values()):
            try:
                tried[method.name].append(method.check(models, True, dict(zip(axes, combination, strict=True))))
            except ValueError as error:
                problems.append(str(error))
        if problems and (asked or not tried[method.name]):
            front = f"{method.name}: " if not problems[0].startswith(method.name) else ""
            wrong.append(f"--method {front}{'; '.join(dict.fromkeys(problems))}")
    if wrong:
        raise UsageError("; ".join(wrong))
    return tried


def named(words: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the options that the user named."""
    return tuple(pairs.values(words))


def shown(options: dict[str, Any], tried: Sequence[dict[str, Any]], also: Sequence[str] = ()) -> dict[str, Any]:
    """Returns of the options those that a table shows: of which several values were tried, or that the user named (`also`)."""
    return {key: value for key, value in options.items() if key in also or any(other[key] != value for other in tried)}


def _known(methods: Sequence[Method]) -> str:
    return "; ".join(
        f"{method.name} has {', '.join(option.name for option in method.options) or 'none'}" for method in methods
    )


def _listed(value: Any) -> tuple[Any, ...]:
    """The values of `0.2,0.5`, `[0.2, 0.5]` or `0.2`."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str):
        return (value,)
    return tuple(_number(part) for part in value.split(","))


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()

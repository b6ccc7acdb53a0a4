"""What a stranger must know to compute a model's outputs from its arrays: the network, its layouts, how inputs are scaled, the classes."""

import dataclasses
import inspect
import json
from typing import Any

import flax.linen as nn

from tna_jax.models.layers import EPSILON, ConvNet
from tna_jax.programs.data import Dataset

LAYOUTS = {
    "kernel, 2 axes": "(in, out): outputs = inputs @ kernel + bias; images are flattened in C order, (height, width, channels)",
    "kernel, 4 axes": "HWIO, (height, width, in, out), a cross-correlation over images NHWC, (batch, height, width, channels)",
    "kernel, 3 axes, query, key and value of attention": "(in, heads, size of a head)",
    "kernel, 3 axes, out of attention": "(heads, size of a head, out)",
    "bias, scale, mean, var": "(channels,), the last axis",
}
"""Axes of arrays by their names; those of the networks of this library."""
FORMULA = "(x / largest_pixel - mean) / std, mean and std of each channel"


def describe(config: dict[str, Any], data: Dataset, module: nn.Module | None) -> dict[str, Any]:
    """Returns, in JSON's types, the network of a run and what it takes.

    Args:
      config: of the run.
      data: what it was trained on.
      module: the network; None for one of the user's own, of which only the name is known.
    """
    scaling = None
    if data.mean:
        scaling = {
            "largest_pixel": data.max_value, "mean": list(data.mean), "std": list(data.std), "formula": FORMULA,
        }  # fmt: skip
    about: dict[str, Any] = {
        "model": config.get("model"),
        "input_shape": list(data.image_shape),
        "scaling": scaling,
        "outputs": data.num_classes,
        "classes": list(data.class_names) or None,
    }
    if module is None:
        return {**about, "options": config.get("model_options")}
    norm = getattr(module, "norm", "none")
    return {
        **about,
        "options": options(module),
        "activation": getattr(module, "act", "relu"),
        "layouts": LAYOUTS,
        **({"norm_epsilon": EPSILON} if isinstance(module, ConvNet) and norm != "none" else {}),
        "computes": inspect.getdoc(type(module)) or "",
    }


def options(module: nn.Module) -> dict[str, Any]:
    """Returns the fields of a module by name, as `tna_jax.models.create` takes them; those that JSON does not hold are left out."""
    fields = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {name: value for name, value in fields.items() if name not in ("parent", "name") and _is_json(value)}


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
